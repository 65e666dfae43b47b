"""Protections: the marks of `M9M.protect`, and the marks that nothing would enforce."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import FunctionType, MethodType
from typing import Any, NamedTuple
from weakref import WeakSet

from flask import Blueprint, Flask

from ..errors import Problem
from ..guard.marks import Demand, LimitMark, Mark
from ..guard.policy import Level
from .marked_views import closure_values, layers_of, marks_of, name_of


class Unmatched(NamedTuple):
    """What `M9M.protect` names and no app has."""

    target: str
    found: str
    remedy: str = "correct it; this lists the endpoints: flask m9m routes"


@dataclass
class Protections:
    """The marks that `M9M.protect` put on blueprints and endpoint patterns.

    Attributes:
        revision: grows when a protection is added.
        apps: the apps of the `M9M`.
    """

    revision: int = 0
    apps: WeakSet[Flask] = field(default_factory=WeakSet)
    _blueprints: list[tuple[Blueprint, Sequence[Mark]]] = field(default_factory=list)
    _patterns: list[tuple[str, Sequence[Mark]]] = field(default_factory=list)
    _matched: set[str] = field(default_factory=set)
    _registered: WeakSet[Blueprint] = field(default_factory=WeakSet)

    def protect(self, target: Blueprint | str, marks: Sequence[Mark]) -> None:
        """Put marks on a blueprint, or on all endpoints that match a pattern.

        An equal protection is added once: an app factory repeats it for each app that it makes.
        """
        demands = [mark.meaning for mark in marks]
        protected: list[Any] = self._patterns if isinstance(target, str) else self._blueprints
        for known, known_marks in protected:
            if known == target and [mark.meaning for mark in known_marks] == demands:
                return
        protected.append((target, marks))
        self.revision += 1

    def unmatched(self, app: Flask) -> list[Unmatched]:
        """List the blueprints and patterns that no app of this `M9M` has: they protect nothing."""
        apps = {app, *self.apps}
        endpoints = {endpoint for each in apps for endpoint in each.view_functions}
        # What an app had that is gone, as in a test of an app factory, stays known.
        self._registered.update(
            target
            for target, _ in self._blueprints
            if any(target is known for each in apps for known in each.blueprints.values())
        )
        self._matched.update(
            pattern
            for pattern, _ in self._patterns
            if any(fnmatchcase(endpoint, pattern) for endpoint in endpoints)
        )
        patterns = [
            Unmatched(ascii(pattern), "no endpoint matches the pattern")
            for pattern, _ in self._patterns
            if pattern not in self._matched
        ]
        return patterns + [
            Unmatched(
                f"<Blueprint {target.name}>",
                "no app of this M9M has registered this blueprint object",
                "register it, or name its endpoints",
            )
            for target, _ in self._blueprints
            if target not in self._registered
        ]

    def levels_of(self, endpoint: str, app: Flask) -> Iterator[Level]:
        """Yield an endpoint's levels: inner blueprint, outer blueprints, patterns."""
        for name in _blueprints_around(endpoint, app):
            blueprint = app.blueprints.get(name)
            protections = (marks for known, marks in self._blueprints if known is blueprint)
            yield Level(f"blueprint {name}", [mark for marks in protections for mark in marks])
        matching: dict[str, list[Mark]] = {}
        for pattern, marks in self._patterns:
            if fnmatchcase(endpoint, pattern):
                matching.setdefault(pattern, []).extend(marks)
        for pattern in sorted(matching, key=_exactness, reverse=True):
            yield Level(f"pattern {pattern}", matching[pattern])


def _blueprints_around(endpoint: str, app: Flask) -> Iterator[str]:
    """Yield the names of an endpoint's blueprints, the inner first.

    Extensions name endpoints of a nested or renamed blueprint after its own name, as if it had been
    registered by it: then the names by which it was registered stand for it.
    """
    nearest = endpoint.rpartition(".")[0]
    registered = [nearest] if nearest else []
    if nearest and nearest not in app.blueprints:
        found = (name for name, known in app.blueprints.items() if known.name == nearest)
        registered = sorted(found) or registered
    for name in registered:
        while name:
            yield name
            name = name.rpartition(".")[0]


def _exactness(pattern: str) -> tuple[bool, int]:
    """Rank a pattern: a literal name first, then by the number of literal characters."""
    literal = len(pattern) - sum(map(pattern.count, "*?[]"))
    return literal == len(pattern), literal


def unenforced(app: Flask) -> Iterator[Problem]:
    """Yield a problem for each marked function that an app calls other than as a view, unguarded.

    Above `@app.before_request` or `@app.errorhandler(404)` a decorator marks a function that Flask
    has registered without the mark; below it, the mark is enforced.
    """
    for place, function in _registered(app):
        yield from _past_mark(function, f"Flask calls the function as {place}")
    for endpoint, view in app.view_functions.items():
        yield from hidden_marks(endpoint, view)


def hidden_marks(endpoint: str, view: object) -> Iterator[Problem]:
    """Yield a problem for each marked function that a view calls past the mark.

    An extension may have put a function without `functools.wraps` in the place of the view.
    """
    layers = list(layers_of(view))
    innermost = layers[-1] if layers else None
    enforced = {mark for layer in layers for mark in marks_of(layer)}
    defaults = getattr(innermost, "__defaults__", None) or ()
    named = getattr(innermost, "__kwdefaults__", None) or {}
    for value in (*closure_values(innermost), *defaults, *named.values()):
        if isinstance(value, FunctionType | MethodType):
            yield from _past_mark(value, f"the view of {endpoint!a} calls the function", enforced)


def _past_mark(function: object, call: str, enforced: Collection[Mark] = ()) -> Iterator[Problem]:
    *outer, innermost = layers_of(function)
    held = {*enforced, *(mark for layer in outer for mark in marks_of(layer))}
    for mark in marks_of(innermost):
        if isinstance(mark, Demand | LimitMark) and mark not in held:
            decorator = getattr(mark, "decorator", "@rate_limit")
            yield Problem(
                f"{decorator} on {name_of(innermost)}",
                f"{call}, past the mark",
                f"write {decorator} below the decorator that registers it",
            )
            break


def _registered(app: Flask) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the functions that an app calls other than as views, each with its use."""
    for name in _HOOKS:
        for functions in getattr(app, name).values():
            for function in functions:
                yield f"one of {name}", function
    for by_code in app.error_handler_spec.values():
        for handlers in by_code.values():
            for function in handlers.values():
                yield "an error handler", function


_HOOKS = (
    "url_value_preprocessors",
    "before_request_funcs",
    "after_request_funcs",
    "teardown_request_funcs",
    "template_context_processors",
)
