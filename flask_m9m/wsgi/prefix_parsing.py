"""Parsing of prefix policies (`M9MMiddleware(policies=…)`): the keys, their values, problems."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from ..errors import Problem, SettingsError
from ..guard.marks import CORSMark, HeadersMark, LimitMark, Mark, Opening, Requirement
from ..guard.policy import Access
from ..ratelimit.limit import limit_name
from ..settings.wording import kind, shown
from .prefix_policies import PrefixRule, PrefixRules, prefix_problem

_REQUIREMENTS = ("scopes", "any_scope", "roles", "schemes", "fresh")
_LIMIT_OPTIONS = ("burst", "key", "cost", "name")
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_ACCEPTED = {
    "prefix": (str, "must be a path such as /admin"),
    "methods": (Collection, "must be a list such as [GET, POST]"),
    "access": (str, "must be public, authenticated or optional"),
    "scopes": (Collection, "must be a list of names, or text with spaces between them"),
    "any_scope": (Collection, "must be a list of names, or text with spaces between them"),
    "roles": (Collection, "must be a list of names, or text with spaces between them"),
    "schemes": (Collection, "must be a list of names, or text with spaces between them"),
    "fresh": (bool, "must be true or false"),
    "rate_limit": (str, "must be text such as 100/hour"),
    "burst": (int, "must be a whole number"),
    "key": (str, "must be address or identity"),
    "cost": (int, "must be a whole number"),
    "name": (str, "must be text"),
    "cors": (Mapping, "must be a mapping with keys of security.cors"),
    "headers": (Mapping, "must be a mapping with keys of security.headers"),
}
"""Each key, the type of its value, and the wording of that type in messages."""


def read_policies(policies: object, *, default: Access | None) -> tuple[PrefixRules, list[Problem]]:
    """Parse policies by path prefix.

    Args:
        policies: a list of mappings.
        default: the access where no policy decides it; `None` if the settings are invalid.

    Returns:
        The valid policies, and the problems of the others.
    """
    if isinstance(policies, Mapping | str) or not isinstance(policies, Sequence):
        return PrefixRules(), [Problem("policies", kind(policies), "must be a list of mappings")]
    valid: list[PrefixRule] = []
    problems: list[Problem] = []
    for number, given in enumerate(policies):
        reader = _Reader(f"policies[{number}]", given)
        rule = reader.read()
        problems += reader.problems
        if rule is not None:
            valid.append(rule)
    problems += _find_duplicates(valid)
    rules = PrefixRules(valid)
    if default is not None and not problems:
        problems += rules.uncovered(default)
    return rules, problems


def _find_duplicates(rules: Sequence[PrefixRule]) -> Iterator[Problem]:
    """Yield a problem for each policy with the prefix and a method of an earlier policy."""
    first: dict[tuple[str, str | None], PrefixRule] = {}
    for rule in rules:
        for method in (None,) if rule.methods is None else sorted(rule.methods):
            other = first.setdefault((rule.prefix, method), rule)
            if other is not rule:
                found = f"{rule.prefix or '/'} for methods that {other.where} has already"
                yield Problem(rule.where, found, "give one policy for each prefix and method")
                break


class _Reader:
    """Parses one policy and collects all its problems."""

    def __init__(self, where: str, given: object) -> None:
        self.problems: list[Problem] = []
        self._where = where
        self._given = given
        self._values: dict[str, Any] = {}

    def read(self) -> PrefixRule | None:
        """Parse the policy; return `None` if it has a problem."""
        if not isinstance(self._given, Mapping):
            self.problems.append(Problem(self._where, kind(self._given), "must be a mapping"))
            return None
        self._read_values(self._given)
        prefix, methods = self._prefix(), self._methods()
        access, marks = self._marks(prefix, methods)
        if not marks and not self.problems:
            self._add_problem("", "it has no effect", "add access, scopes, rate_limit or the like")
        if self.problems:
            return None
        return PrefixRule(self._where, prefix.rstrip("/"), methods, access, marks)

    def _add_problem(self, key: str, found: str, accepted: str) -> None:
        self.problems.append(Problem(f"{self._where}.{key}".rstrip("."), found, accepted))

    def _read_values(self, given: Mapping[Any, Any]) -> None:
        for key, value in given.items():
            if key not in _ACCEPTED:
                near = get_close_matches(str(key), _ACCEPTED, 1)
                hint = (
                    f"did you mean {near[0]}?" if near else f"must be one of {', '.join(_ACCEPTED)}"
                )
                self._add_problem(str(key)[:60], "unknown key", hint)
                continue
            wanted, accepted = _ACCEPTED[key]
            if self._is_of_type(key, value, wanted):
                self._values[key] = value
            else:
                self._add_problem(key, shown(value), accepted)
        if "prefix" not in given:
            self._add_problem("prefix", "missing", _ACCEPTED["prefix"][1])

    @staticmethod
    def _is_of_type(key: str, value: object, wanted: type) -> bool:
        if wanted is not Collection:
            return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
        if isinstance(value, str):
            return key != "methods" and bool(value.strip())
        if not isinstance(value, list | tuple | set | frozenset):
            return False
        return bool(value) and all(isinstance(name, str) for name in value)

    def _prefix(self) -> str:
        prefix: str = self._values.get("prefix", "/")
        if (accepted := prefix_problem(prefix)) is not None:
            self._add_problem("prefix", shown(prefix), accepted)
        return prefix

    def _methods(self) -> frozenset[str] | None:
        given: Collection[str] | None = self._values.get("methods")
        if given is None:
            return None
        for method in given:
            if not _METHOD.fullmatch(method):
                self._add_problem("methods", shown(method), _ACCEPTED["methods"][1])
        methods = frozenset(method.upper() for method in given)
        if "HEAD" in methods and "GET" not in methods:
            self._add_problem("methods", "HEAD without GET", "list GET, which covers both")
        return methods - {"HEAD"}

    def _marks(
        self, prefix: str, methods: frozenset[str] | None
    ) -> tuple[Access | None, tuple[Mark, ...]]:
        access, access_mark = self._access()
        made = [
            access_mark,
            self._limit(prefix, methods),
            self._overrides("cors", CORSMark.of),
            self._overrides("headers", HeadersMark.of),
        ]
        return access, tuple(mark for mark in made if mark is not None)

    def _access(self) -> tuple[Access | None, Mark | None]:
        values = self._values
        access = values.get("access")
        if access not in (None, "public", "authenticated", "optional"):
            self._add_problem("access", shown(access), _ACCEPTED["access"][1])
            return None, None
        demands = {key: values[key] for key in _REQUIREMENTS if values.get(key)}
        if access == "public":
            for key in demands:
                self._add_problem(key, "set, but access is public", "remove this or access")
            return Access.PUBLIC, Opening()
        if access is None and not demands:
            return None, None
        requirement = None
        for key, value in demands.items():  # each alone first, to report every problem
            self._make(key, partial(Requirement.of, **{key: value}))
        if not self.problems:
            requirement = Requirement.of(**demands, optional=access == "optional", instead=True)
        return Access(access or "authenticated"), requirement

    def _limit(self, prefix: str, methods: frozenset[str] | None) -> Mark | None:
        options = {key: self._values[key] for key in _LIMIT_OPTIONS if key in self._values}
        limits = self._values.get("rate_limit")
        if limits is None:
            if "rate_limit" not in self._given:  # type: ignore[operator]
                for key in options:
                    self._add_problem(key, "set, but rate_limit is not", "set both or neither")
            return None
        # All paths below the prefix share one budget; a policy for other methods has its own.
        own_name = f"{'-'.join(sorted(methods))}:{prefix}" if methods else prefix
        options.setdefault("name", limit_name(own_name))
        return self._make("rate_limit", partial(LimitMark.of, limits, **options))

    def _overrides(self, key: str, make: Callable[..., Mark]) -> Mark | None:
        if key not in self._values:
            return None
        return self._make(key, lambda: make(**self._values[key]))

    def _make(self, key: str, make: Callable[[], Mark]) -> Mark | None:
        """Make a mark; turn an error of its arguments into problems of the policy."""
        try:
            return make()
        except SettingsError as error:
            for problem in error.problems:
                path = problem.path.rpartition(".")[2]
                self._add_problem(f"{key}.{path}", problem.found, problem.accepted)
        except (TypeError, ValueError) as error:
            self._add_problem(key, shown(self._values[key]), str(error))
        return None
