"""Prefix policies: access, rate limits, CORS and headers by path prefix and method.

`M9MMiddleware` uses them, because it does not know an app's routes. A path is `SCRIPT_NAME` and
`PATH_INFO`, percent-decoded once, as WSGI servers do. It is compared by whole segments, character
by character: `/admin` covers `/admin`, `/admin/` and `/admin/x`, but not `/administrator`,
`/Admin` or `/admin;x`. An ambiguous path is refused, because two programs could read it in
different ways: it is not UTF-8, or has `//`, a backslash, a control character or a segment `.` or
`..`.

The longest prefix wins: the nearest policy with an access decides the access, and likewise for
CORS and for headers; rate limits add up. At the same prefix, a policy with `methods` comes before
a policy without. Where no policy has an access, `security.default_access` applies.
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

_FORBIDDEN = bytes((*range(0x20), 0x7F, ord("\\")))
_DOT_SEGMENT = re.compile(r"/\.\.?(?:;[^/]*)?(?:/|\Z)")


@dataclass(frozen=True, slots=True)
class PrefixRule:
    """One policy of the app.

    Attributes:
        where: its place in messages, such as `policies[0]`.
        prefix: the path prefix without a slash at its end; empty for `/`.
        methods: in upper case, with `GET` for `HEAD`; `None` for all methods.
        access: who gets through; `None` if the policy does not decide it.
        marks: its demands and overrides, as marks of the guard.
    """

    where: str
    prefix: str
    methods: frozenset[str] | None
    access: Access | None
    marks: tuple[Mark, ...]

    def covers(self, method: str) -> bool:
        """Tell whether the policy applies to a method."""
        return self.methods is None or method in self.methods


def path_of(environ: WSGIEnvironment, mounted_at: str | None = None) -> str | None:
    """Return a request's path, or `None` if the path is ambiguous.

    Args:
        environ: the request.
        mounted_at: the `SCRIPT_NAME` that every request must have; `None` for any that the server
            sets itself. One from a header field is refused: gunicorn accepts it from a local peer,
            and then `/public/admin` could be `/admin` to the app.

    Returns:
        `SCRIPT_NAME` and `PATH_INFO`, at least `/`, as text.
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
    # Not one pattern: with alternatives it takes thirty times as long.
    octets = path.encode("utf-8", "surrogatepass")
    if "//" in path or len(octets.translate(None, _FORBIDDEN)) != len(octets):
        return False
    return "/." not in path or _DOT_SEGMENT.search(path) is None


def prefix_problem(prefix: str) -> str | None:
    """Return the rule that a prefix breaks, for a message; `None` if the prefix is valid."""
    if not prefix.startswith("/"):
        return "must be a path that begins with /"
    if prefix != "/" and prefix.endswith("/"):
        return f"must be without the slash at its end: {prefix.rstrip('/')!a}"
    if not _is_plain(prefix):
        return "must be a path without //, \\, control characters and the segments . and .."
    if re.search(r"%[0-9A-Fa-f]{2}", prefix):
        return "must be the percent-decoded path"
    if re.search(r"[*?#<>{}]", prefix):
        return "must be a path in whole segments, without patterns; it covers all paths below it"
    return None


class PrefixRules:
    """The policies of an app, found by their prefixes.

    Args:
        rules: all policies.

    Attributes:
        rules: all policies, in the app's order.
        prefixes: the prefixes with a policy, and the empty prefix.
        methods: the methods that the policies name.
    """

    def __init__(self, rules: Iterable[PrefixRule] = ()) -> None:
        self.rules = tuple(rules)
        self._by_prefix: dict[str, list[PrefixRule]] = {"": []}
        for rule in self.rules:
            self._by_prefix.setdefault(rule.prefix, []).append(rule)
        for same_prefix in self._by_prefix.values():
            same_prefix.sort(key=lambda candidate: candidate.methods is None)
        self.prefixes = tuple(self._by_prefix)
        self.methods = tuple(
            sorted({method for rule in self.rules for method in rule.methods or ()})
        )

    def holding(self, prefix: str, method: str) -> Iterator[PrefixRule]:
        """Yield the policies that apply to a prefix and a method, the nearest first."""
        while True:
            for rule in self._by_prefix.get(prefix, ()):
                if rule.covers(method):
                    yield rule
            if not prefix:
                return
            prefix = prefix.rpartition("/")[0]

    def uncovered(self, default: Access) -> Iterator[Problem]:
        """Yield a problem for each policy that requires authentication for some methods only.

        A client could use another method to get around it: methods are an open set (RFC 9110
        §9.1). It is no problem if the other methods require authentication as well, or if a policy
        at the same prefix decides their access.

        Args:
            default: the access where no policy decides it.
        """
        for rule in self.rules:
            peers = [peer for peer in self._by_prefix[rule.prefix] if peer.access is not None]
            if rule.access is not Access.AUTHENTICATED or any(
                peer.methods is None for peer in peers
            ):
                continue
            others = [
                method
                for method in (*self.methods, ANY_OTHER_METHOD)
                if not any(peer.covers(method) for peer in peers)
                and self._access(rule.prefix, method, default) is not Access.AUTHENTICATED
            ]
            if others:
                yield Problem(
                    f"{rule.where}.methods",
                    f"requires authentication for {', '.join(sorted(rule.methods or ()))} of "
                    f"{rule.prefix or '/'}, but leaves these methods open: {', '.join(others)}",
                    "add a policy without methods for the same prefix; it covers all others",
                )

    def _access(self, prefix: str, method: str, default: Access) -> Access:
        decisions = (
            rule.access for rule in self.holding(prefix, method) if rule.access is not None
        )
        return next(decisions, default)


class Prefixes:
    """Finds the compiled policy for a path and a method.

    Args:
        rules: the app's policies.
        compiler: compiles them once, for each prefix and method.

    Raises:
        SettingsError: the policies contradict the settings; it lists every problem.
    """

    def __init__(self, rules: PrefixRules, compiler: PolicyCompiler) -> None:
        self._policies: dict[str, dict[str, RoutePolicy]] = {}
        problems: list[Problem] = []
        for prefix in rules.prefixes:
            self._policies[prefix] = by_method = {}
            for method in (*rules.methods, ANY_OTHER_METHOD):
                levels = [Level(rule.where, rule.marks) for rule in rules.holding(prefix, method)]
                try:
                    by_method[method] = compiler.compile(prefix or "/", levels, method)
                except SettingsError as error:
                    problems += error.problems
        if problems:
            raise SettingsError(list(dict.fromkeys(problems)))
        self._deepest = max(prefix.count("/") for prefix in self._policies)

    def find(self, path: str, method: str) -> RoutePolicy:
        """Return the policy for a request.

        Args:
            path: a result of `path_of`.
            method: in upper or lower case, because some frameworks treat `post` as `POST`.
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
