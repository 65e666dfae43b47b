"""Routes: which policy holds for a request, from the marks around its view."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Blueprint, Flask
from flask.views import View
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect

from ..errors import Problem, SettingsError
from ..guard.marks import ANY_OTHER_METHOD, USUAL_METHODS, Mark, Opening
from ..guard.policy import FLASK, Level, RoutePolicy
from ..guard.policy_compiler import PolicyCompiler
from .marked_views import enclosed_by, layers_of, marks_of, owners_of

if TYPE_CHECKING:
    from flask import Request
    from werkzeug.routing import MapAdapter, Rule


@dataclass
class Protections:
    """The marks that `M9M.protect` put on blueprints and endpoint patterns.

    Attributes:
        revision: grows with each protection.
    """

    revision: int = 0
    _blueprints: list[tuple[Blueprint, Sequence[Mark]]] = field(default_factory=list)
    _patterns: list[tuple[str, Sequence[Mark]]] = field(default_factory=list)

    def protect(self, target: Blueprint | str, marks: Sequence[Mark]) -> None:
        """Put marks on a blueprint or on all endpoints that fit a pattern.

        The same once more, as a factory says it for each app that it makes, changes nothing.
        """
        demands = [mark.meaning for mark in marks]
        protected: list[Any] = self._patterns if isinstance(target, str) else self._blueprints
        for known, known_marks in protected:
            if known == target and [mark.meaning for mark in known_marks] == demands:
                return
        protected.append((target, marks))
        self.revision += 1

    def unmatched(self, endpoints: Collection[str]) -> list[str]:
        """Return the patterns that no endpoint fits: they protect nothing."""
        return [
            pattern
            for pattern, _ in self._patterns
            if not any(fnmatchcase(endpoint, pattern) for endpoint in endpoints)
        ]

    def levels_of(self, endpoint: str, app: Flask) -> Iterator[Level]:
        """Yield the levels around an endpoint: inner blueprint, outer ones, patterns."""
        names = endpoint.split(".")[:-1]
        for depth in range(len(names), 0, -1):
            name = ".".join(names[:depth])
            blueprint = app.blueprints.get(name)
            protections = (marks for one, marks in self._blueprints if one is blueprint)
            yield Level(f"blueprint {name}", [mark for marks in protections for mark in marks])
        fitting: dict[str, list[Mark]] = {}
        for pattern, marks in self._patterns:
            if fnmatchcase(endpoint, pattern):
                fitting.setdefault(pattern, []).extend(marks)
        for pattern in sorted(fitting, key=_exactness, reverse=True):
            yield Level(f"pattern {pattern}", fitting[pattern])


def _exactness(pattern: str) -> tuple[bool, int]:
    literal = len(pattern) - sum(map(pattern.count, "*?[]"))
    return literal == len(pattern), literal


logger = logging.getLogger("flask_m9m")

_AUTOMATIC_OPTIONS = "OPTIONS, answered by Flask"  # with the methods; the view never runs


class Compiled(NamedTuple):
    """A policy, and of what it was compiled."""

    policy: RoutePolicy
    view: object
    revision: int


METRICS_ENDPOINT = "m9m_metrics"


class Routes:
    """Finds the policy of a request's route, compiling each once.

    Args:
        app: the app.
        policies: compiles them.
        protections: what holds for blueprints and endpoint patterns.
    """

    def __init__(self, app: Flask, policies: PolicyCompiler, protections: Protections) -> None:
        self._app = app
        self._policies = policies
        self._protections = protections
        self._compiled: dict[tuple[str, str], Compiled] = {}
        self._unrouted = policies.unrouted()
        for pattern in protections.unmatched(app.view_functions):
            logger.warning("m9m.protect(%a): no endpoint of %s fits", pattern, app.name)

    def check_own(self) -> None:
        """Before the first request: see that no route of the app's stands where ours does.

        Raises:
            SettingsError: one does.
        """
        for own in self._app.url_map.iter_rules():
            if own.endpoint != METRICS_ENDPOINT:
                continue
            for rule in self._app.url_map.iter_rules():
                same = rule.rule == own.rule and "GET" in (rule.methods or ("GET",))
                if same and rule.endpoint != own.endpoint:
                    found = f"{own.rule!r}, where the app has its route {rule.endpoint!r}"
                    raise SettingsError([Problem("metrics.path", found, "a path of its own")])

    def is_own(self, endpoint: str) -> bool:
        """Tell whether an endpoint's view is one of this package, which the settings switch on."""
        innermost = list(layers_of(self._app.view_functions.get(endpoint)))[-1:]
        modules = [getattr(layer, "__module__", None) or "" for layer in innermost]
        return any(module.startswith("flask_m9m.") for module in modules)

    def policy(self, rule: Rule | None, method: str) -> RoutePolicy:
        """Return what holds for a request; for one that no route answers, what holds for all.

        Args:
            rule: the route's.
            method: the request's; any text.
        """
        if rule is None:
            return self._unrouted
        if method not in USUAL_METHODS:
            method = self._unusual(rule, method)
        endpoint, revision = rule.endpoint, self._protections.revision
        view = self._app.view_functions.get(endpoint)
        known = self._compiled.get((endpoint, method))
        if known is not None and known.view is view and known.revision == revision:
            return known.policy
        policy = self.compile(endpoint, method)
        self._compiled[endpoint, method] = Compiled(policy, view, revision)
        return policy

    def find(self, request: Request, method: str) -> tuple[RoutePolicy, Collection[str] | None]:
        """Return what holds at a request's path for another method, and the path's methods.

        Args:
            request: a preflight.
            method: what it asks for; any text.
        """
        try:
            adapter = self._app.create_url_adapter(request)
        except HTTPException:
            adapter = None
        if adapter is None:
            return self._unrouted, None
        rule, methods = _match(adapter, method)
        return self.policy(rule, method.upper()), methods

    def all(self) -> Iterator[tuple[Rule, str, RoutePolicy]]:
        """Yield every route of the app, each of its methods, and what holds there.

        `HEAD` beside `GET` is left out, and so is an `OPTIONS` that Flask answers.

        Raises:
            SettingsError: marks contradict each other or the settings.
        """
        for rule in self._app.url_map.iter_rules():
            methods = USUAL_METHODS if rule.methods is None else rule.methods
            automatic = {"HEAD"} if "GET" in methods else set()
            if _answers_options(rule):
                automatic.add("OPTIONS")
            for method in sorted(methods - automatic):
                yield rule, method, self.policy(rule, method)

    @staticmethod
    def _unusual(rule: Rule, method: str) -> str:
        """Return under which name a method's policy is kept, of which there are only so many."""
        if method == "OPTIONS" and _answers_options(rule):
            return _AUTOMATIC_OPTIONS
        return method if rule.methods and method in rule.methods else ANY_OTHER_METHOD

    def compile(self, endpoint: str, method: str) -> RoutePolicy:
        """Compile what one endpoint demands of one method.

        Raises:
            SettingsError: its marks contradict each other or the settings.
        """
        levels = list(self._levels(endpoint, method))
        if method == _AUTOMATIC_OPTIONS:
            levels.insert(0, Level(FLASK, [Opening()]))
            levels = [Level(level.place, level.marks) for level in levels]
        return self._policies.compile(endpoint, levels, method)

    def _levels(self, endpoint: str, method: str) -> Iterator[Level]:
        view = self._app.view_functions.get(endpoint)
        layers = list(layers_of(view))
        yield Level("view", _marks_on(layers), binding=True)
        view_class = next((vars(one)["view_class"] for one in layers if _has_class(one)), None)
        if view_class is not None:
            yield from _class_levels(view_class, method)
        for owner in owners_of(view):
            for one in owner.__mro__:
                yield Level(f"class {one.__qualname__}", marks_of(one))
        _see_no_other_marks(endpoint, layers)
        yield from self._protections.levels_of(endpoint, self._app)
        if layers and _serves_static_files(endpoint, layers[-1]):
            yield Level(FLASK, [Opening()])


def _see_no_other_marks(endpoint: str, layers: Sequence[Any]) -> None:
    """See that a view belongs to no marked class of which nobody can tell whether it is its view.

    Raises:
        SettingsError: it does.
    """
    for one in enclosed_by(layers):
        if not issubclass(one, View) and any(map(marks_of, one.__mro__)):
            found = f"a mark on the class {one.__qualname__}, which is no View of Flask's"
            accepted = "mark its methods, or use m9m.protect"
            raise SettingsError([Problem(f"route {endpoint}", found, accepted)])


def _answers_options(rule: Rule) -> bool:
    """Tell whether Flask answers `OPTIONS` itself; a rule added to the map directly cannot say."""
    return bool(getattr(rule, "provide_automatic_options", False))


def _match(adapter: MapAdapter, method: str) -> tuple[Rule | None, Collection[str] | None]:
    """Match a path as Flask would for this method, following a missing trailing slash."""
    path = None
    try:
        try:
            rule, _ = adapter.match(method=method, return_rule=True)
        except RequestRedirect:
            path = adapter.path_info.rstrip("/") + "/"
            rule, _ = adapter.match(path, method=method, return_rule=True)
    except MethodNotAllowed as error:
        return None, list(error.valid_methods or ())
    except HTTPException:
        return None, None
    return rule, list(adapter.allowed_methods(path))


def _marks_on(layers: Sequence[Any]) -> tuple[Mark, ...]:
    return tuple(dict.fromkeys(mark for one in reversed(layers) for mark in marks_of(one)))


def _has_class(layer: Any) -> bool:
    view_class = getattr(layer, "__dict__", {}).get("view_class")
    return isinstance(view_class, type) and issubclass(view_class, View)


def _class_levels(view_class: type, method: str) -> Iterator[Level]:
    names = [method.lower(), "dispatch_request"]
    if method == "HEAD" and not hasattr(view_class, "head"):
        names[0] = "get"
    for name in names:
        layers = list(layers_of(getattr(view_class, name, None)))
        yield Level(f"method {name}", _marks_on(layers), binding=True)
    for one in view_class.__mro__:
        yield Level(f"class {one.__qualname__}", marks_of(one), view_class=view_class)


def _serves_static_files(endpoint: str, innermost: object) -> bool:
    module = getattr(innermost, "__module__", None)
    return endpoint.rpartition(".")[2] == "static" and module in ("flask.app", "flask.blueprints")
