"""Policies by path prefix and method: for apps whose routes nobody knows.

A path is `SCRIPT_NAME` and `PATH_INFO`, percent-decoded once, as WSGI servers do, and compared in
whole segments and character by character: `/admin` holds for `/admin`, `/admin/` and `/admin/x`,
not for `/administrator`, `/Admin` or `/admin;x`. A path that programs read in different ways is
none: what is not UTF-8, has `//`, a backslash, a control character or a segment `.` or `..`.

The longest prefix wins: the nearest policy that says something about access decides it, and so for
CORS and headers; rate limits add up. At one prefix a policy that names the method comes before one
that names none. What no policy decides is `security.default_access`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import Problem, SettingsError
from ..guard.marks import ANY_OTHER_METHOD, Mark
from ..guard.policy import Access, Level, RoutePolicy
from ..guard.policy_compiler import PolicyCompiler

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_AMBIGUOUS = re.compile(r"//|\\|[\x00-\x1f\x7f]|/\.\.?(?:;[^/]*)?(?:/|\Z)")


@dataclass(frozen=True, slots=True)
class PrefixRule:
    """One of the policies that the app gives.

    Attributes:
        where: what it is called in messages: `policies[0]`.
        prefix: the path, without the slash at its end: empty for `/`.
        methods: in upper case, `GET` for `HEAD` too; `None` where it holds for all.
        access: what it says about access, if anything.
        marks: all that it demands.
    """

    where: str
    prefix: str
    methods: frozenset[str] | None
    access: Access | None
    marks: tuple[Mark, ...]

    def covers(self, method: str) -> bool:
        """Tell whether it holds for a method."""
        return self.methods is None or method in self.methods


def path_of(environ: WSGIEnvironment, mounted_at: str | None = None) -> str | None:
    """Return a request's path, or `None` where it is not the same to everybody who reads it.

    Args:
        environ: the request.
        mounted_at: the `SCRIPT_NAME` that every request has; left out, whatever the server says.
            What a request field says is not that: gunicorn takes a `SCRIPT_NAME` from there where
            its peer is local, and `/public/admin` would be `/admin` to the app.
    """
    script_name, path_info = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    if "HTTP_SCRIPT_NAME" in environ if mounted_at is None else script_name != mounted_at:
        return None
    if (script_name or "/")[0] != "/" or (path_info or "/")[0] != "/":
        return None
    path: str = script_name + path_info or "/"
    if not path.isascii():
        try:
            path = path.encode("latin-1").decode()
        except UnicodeError:
            return None
    return path if _is_plain(path) else None


def _is_plain(path: str) -> bool:
    return _AMBIGUOUS.search(path) is None


def prefix_problem(prefix: str) -> str | None:
    """Return what is wrong with a prefix, if anything is."""
    if not prefix.startswith("/"):
        return "a path that begins with /"
    if prefix != "/" and prefix.endswith("/"):
        return f"without the slash at its end, which counts for nothing: {prefix.rstrip('/')!a}"
    if not _is_plain(prefix):
        return "a path without //, \\, control characters and the segments . and .."
    if re.search(r"%[0-9A-Fa-f]{2}", prefix):
        return "the path as it reads once it is percent-decoded"
    if re.search(r"[*?#<>{}]", prefix):
        return "a path in whole segments, which holds for all paths below; there are no patterns"
    return None


class PrefixRules:
    """The policies of an app, found by their prefixes.

    Args:
        rules: all of them.

    Attributes:
        prefixes: those for which there are any, and the empty one.
        methods: those that any of them names.
    """

    def __init__(self, rules: Iterable[PrefixRule] = ()) -> None:
        self.rules = tuple(rules)
        self._at: dict[str, list[PrefixRule]] = {"": []}
        for rule in self.rules:
            self._at.setdefault(rule.prefix, []).append(rule)
        for here in self._at.values():
            here.sort(key=lambda one: one.methods is None)
        self.prefixes = tuple(self._at)
        self.methods = tuple(sorted({one for rule in self.rules for one in rule.methods or ()}))

    def holding(self, prefix: str, method: str) -> Iterator[PrefixRule]:
        """Yield the rules that hold at a prefix for a method, the nearest first."""
        while True:
            for rule in self._at.get(prefix, ()):
                if rule.covers(method):
                    yield rule
            if not prefix:
                return
            prefix = prefix.rpartition("/")[0]

    def uncovered(self, default: Access) -> Iterator[Problem]:
        """Yield the rules that close some methods of a path whose other methods stay open.

        A request by another method than those that somebody thought of must not be the way around
        (RFC 9110 §9.1: methods are an open set), unless a rule says so for this very path.

        Args:
            default: what holds where none says anything.
        """
        for rule in self.rules:
            here = [one for one in self._at[rule.prefix] if one.access is not None]
            if rule.access is not Access.AUTHENTICATED or any(one.methods is None for one in here):
                continue
            others = [
                method
                for method in (*self.methods, ANY_OTHER_METHOD)
                if not any(one.covers(method) for one in here)
                and self._decided(rule.prefix, method, default) is not Access.AUTHENTICATED
            ]
            if others:
                yield Problem(
                    f"{rule.where}.methods",
                    f"it closes {', '.join(sorted(rule.methods or ()))} of {rule.prefix or '/'} "
                    f"and leaves {', '.join(others)} open",
                    "add a policy for that prefix without methods, for all the rest",
                )

    def _decided(self, prefix: str, method: str, default: Access) -> Access:
        said = (one.access for one in self.holding(prefix, method) if one.access is not None)
        return next(said, default)


class Prefixes:
    """What holds for each path and method, compiled once.

    Args:
        rules: the app's.
        compiler: the app's.

    Raises:
        SettingsError: the rules contradict the settings; it lists every problem.
    """

    def __init__(self, rules: PrefixRules, compiler: PolicyCompiler) -> None:
        self._policies: dict[str, dict[str, RoutePolicy]] = {}
        problems: list[Problem] = []
        for prefix in rules.prefixes:
            self._policies[prefix] = by_method = {}
            for method in (*rules.methods, ANY_OTHER_METHOD):
                levels = [Level(one.where, one.marks) for one in rules.holding(prefix, method)]
                try:
                    by_method[method] = compiler.compile(prefix or "/", levels, method)
                except SettingsError as error:
                    problems += error.problems
        if problems:
            raise SettingsError(list(dict.fromkeys(problems)))
        self._deepest = max(prefix.count("/") for prefix in self._policies)

    def find(self, path: str, method: str) -> RoutePolicy:
        """Return what holds for a request.

        Args:
            path: as `path_of` returns it.
            method: in any case; some frameworks take `post` for `POST`.
        """
        by_method = self._policies[self._longest(path)]
        method = method.upper()
        return by_method.get("GET" if method == "HEAD" else method) or by_method[ANY_OTHER_METHOD]

    def _longest(self, path: str) -> str:
        segments = path.split("/", self._deepest + 1)[: self._deepest + 1]
        while len(segments) > 1:
            prefix = "/".join(segments)
            if prefix in self._policies:
                return prefix
            segments.pop()
        return ""
