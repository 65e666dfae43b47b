"""Routes: collects the marks on a view, its class and blueprints; the route of each request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from flask import Flask, has_request_context, request
from flask.views import View
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import RequestRedirect

from ..auth.signed_links import signed_host
from ..errors import Problem, SettingsError
from ..guard.marks import ANY_OTHER_METHOD, USUAL_METHODS, LimitMark, Mark, Opening
from ..guard.policy import FLASK, Level, RoutePolicy
from ..guard.policy_compiler import PolicyCompiler
from . import marked_views
from .marked_views import layers_of, marks_of
from .protections import Protections, Unmatched, hidden_marks, unenforced

if TYPE_CHECKING:
    from flask import Request
    from werkzeug.routing import MapAdapter, Rule


_AUTOMATIC_OPTIONS = "OPTIONS, answered by Flask"  # a method of its own; the view never runs


class Compiled(NamedTuple):
    """A policy, with the view and the revision that it was compiled from."""

    policy: RoutePolicy
    view: object
    revision: int


METRICS_ENDPOINT = "m9m_metrics"


class Routes:
    """Finds the policy of a request's route; compiles each policy once.

    Args:
        app: the app.
        policies: compiles policies.
        protections: the marks on blueprints and endpoint patterns.
    """

    def __init__(self, app: Flask, policies: PolicyCompiler, protections: Protections) -> None:
        self._app = app
        self._policies = policies
        self._protections = protections
        self._compiled: dict[tuple[str, str], Compiled] = {}
        policies.home_of = LimitHomes(self._app, self._levels).find
        self._unrouted = policies.unrouted()

    def check(self) -> None:
        """Check the routes and marks before the first request.

        Raises:
            SettingsError: a mark cannot be enforced, or a route has the path of the metrics.
        """
        problems = [
            Problem(f"m9m.protect({target})", found, remedy)
            for target, found, remedy in self.unmatched()
        ]
        problems += unenforced(self._app)
        if problems:
            raise SettingsError(problems)
        self._check_own()

    def unmatched(self) -> list[Unmatched]:
        """List what `M9M.protect` names and none of the M9M's apps has."""
        return self._protections.unmatched(self._app)

    def _check_own(self) -> None:
        """Check that only the metrics route has its path."""
        for own in self._app.url_map.iter_rules():
            if own.endpoint != METRICS_ENDPOINT:
                continue
            for rule in self._app.url_map.iter_rules():
                same = rule.rule == own.rule and "GET" in (rule.methods or ("GET",))
                if same and rule.endpoint != own.endpoint:
                    found = f"{own.rule!r} is also the path of the app's route {rule.endpoint!r}"
                    remedy = "choose a path that no route of the app has"
                    raise SettingsError([Problem("metrics.path", found, remedy)])

    def is_own(self, endpoint: str) -> bool:
        """Tell whether an endpoint's view is part of flask-m9m, such as those of the REST API."""
        innermost = list(layers_of(self._app.view_functions.get(endpoint)))[-1:]
        modules = [getattr(layer, "__module__", None) or "" for layer in innermost]
        return any(module.startswith("flask_m9m.") for module in modules)

    def policy(self, rule: Rule | None, method: str) -> RoutePolicy:
        """Get the policy of a request.

        Args:
            rule: the route's rule; `None` for a request that no route matches.
            method: the request's method; any text.

        Raises:
            SettingsError: the route's marks contradict each other or the settings.
        """
        if rule is None:
            return self._unrouted
        if method not in USUAL_METHODS:
            method = self._cache_key(rule, method)
        endpoint = rule.endpoint
        revision = self._protections.revision + marked_views.revision
        view = self._app.view_functions.get(endpoint)
        known = self._compiled.get((endpoint, method))
        if known is not None and known.view is view and known.revision == revision:
            return known.policy
        policy = self.compile(endpoint, method)
        self._compiled[endpoint, method] = Compiled(policy, view, revision)
        return policy

    def unrouted(self, _: str = "") -> tuple[RoutePolicy, Collection[str] | None]:
        """Find the policy of a preflight whose path no route has, as `find` does."""
        return self._unrouted, None

    def mounted(self) -> RoutePolicy:
        """Compile the policy of WSGI apps that are mounted inside the guard's wrapper.

        Raises:
            SettingsError: it needs authentication, and no scheme is switched on.
        """
        return self._policies.mounted()

    def has_path(self, request: Request) -> bool:
        """Tell whether a route of the app has the path of a request, by any method."""
        try:
            adapter = self._app.create_url_adapter(request)
            return adapter is not None and _match(adapter, request.method) != (None, None)
        except Exception:  # a URL converter failed: Flask will answer
            return True

    def host_to_sign(self, url: str, method: str) -> str | None:
        """Return the host that a signed URL must cover, as `signed_host` does for its request.

        The host of a path without one is that of the current request.

        Raises:
            ValueError: the URL has no host, there is no request, and a rule's host is variable.
        """
        parts, root = urlsplit(url), ""
        host, scheme = parts.netloc, parts.scheme
        if has_request_context():
            root = request.script_root
            host, scheme = host or request.host, scheme or request.scheme
        if not any("<" in f"{rule.host}{rule.subdomain}" for rule in self._rules()):
            return None
        if not host:
            raise ValueError(
                "url must be absolute outside a request, as url_for(…, _external=True) makes it: "
                "the app has a route whose host or subdomain is variable"
            )
        environ = {
            "REQUEST_METHOD": method.upper(),
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(parts.path.removeprefix(root)).decode("latin-1"),
            "HTTP_HOST": host,
            "wsgi.url_scheme": scheme or "http",
        }
        try:
            adapter = self._app.create_url_adapter(self._app.request_class(environ))
        except HTTPException:
            return None
        rule = None if adapter is None else _match(adapter, method.upper())[0]
        return signed_host(rule, environ)

    def _rules(self) -> Iterator[Rule]:
        return self._app.url_map.iter_rules()

    def find(self, request: Request, method: str) -> tuple[RoutePolicy, Collection[str] | None]:
        """Find the policy of the request that a preflight announces.

        Args:
            request: the preflight.
            method: the method that it announces; any text.

        Returns:
            The policy, and the methods of the path, `None` if no route has the path.
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
        """Yield the policies of the app, with the rule and the method of each.

        `HEAD` is left out beside `GET`, and so is an `OPTIONS` that Flask answers automatically.

        Raises:
            SettingsError: the marks of a route contradict each other or the settings.
        """
        for rule in self._app.url_map.iter_rules():
            methods = USUAL_METHODS if rule.methods is None else rule.methods
            automatic = {"HEAD"} if "GET" in methods else set()
            if _answers_options(rule):
                automatic.add("OPTIONS")
            for method in sorted(methods - automatic):
                yield rule, method, self.policy(rule, method)

    @staticmethod
    def _cache_key(rule: Rule, method: str) -> str:
        """Map an arbitrary method to one of a bounded set of cache keys."""
        if method == "OPTIONS" and _answers_options(rule):
            return _AUTOMATIC_OPTIONS
        return method if rule.methods and method in rule.methods else ANY_OTHER_METHOD

    def compile(self, endpoint: str, method: str) -> RoutePolicy:
        """Compile the policy of an endpoint for a method.

        Raises:
            SettingsError: the endpoint's marks contradict each other or the settings, or its view
                calls a function past its marks.
        """
        if problems := list(hidden_marks(endpoint, self._app.view_functions.get(endpoint))):
            raise SettingsError(problems)
        levels = list(self._levels(endpoint, method))
        if method == _AUTOMATIC_OPTIONS:
            levels.insert(0, Level(FLASK, [Opening()]))
            levels = [Level(level.place, level.marks) for level in levels]
        return self._policies.compile(endpoint, levels, method)

    def _levels(self, endpoint: str, method: str) -> Iterator[Level]:
        view = self._app.view_functions.get(endpoint)
        layers = list(layers_of(view))
        yield Level("view", _marks_on(layers), binding=True)
        view_class = next(
            (vars(layer)["view_class"] for layer in layers if _has_view_class(layer)), None
        )
        if view_class is not None:
            yield from _class_levels(view_class, method)
        yield from self._protections.levels_of(endpoint, self._app)
        if layers and _serves_static_files(endpoint, layers[-1]):
            yield Level(FLASK, [Opening()])


def _answers_options(rule: Rule) -> bool:
    """Tell whether Flask answers `OPTIONS` automatically; a rule added to the map is unknown."""
    return bool(getattr(rule, "provide_automatic_options", False))


class LimitHomes:
    """Finds the bucket of a limit on a function or class that several endpoints serve.

    Every worker must find the same one: it is named after the first endpoint by name.

    Args:
        app: the app.
        levels: returns the levels of an endpoint's marks for a method.
    """

    def __init__(self, app: Flask, levels: Callable[[str, str], Iterable[Level]]) -> None:
        self._app = app
        self._levels = levels
        self._known: dict[tuple[LimitMark, object], str] = {}
        self._called: dict[tuple[LimitMark, str], str | None] = {}
        self._revision = (-1, -1)

    def find(self, mark: LimitMark, route: str) -> str | None:
        """Find the name of a limit's bucket; `route` is an endpoint, or ends in `>function`."""
        revision = (len(self._app.view_functions), marked_views.revision)
        if revision != self._revision:
            self._known, self._called, self._revision = self._all(), {}, revision
        function = _function_of(self._app.view_functions.get(route))
        if function is not None:
            return self._known.get((mark, function))
        called = mark, route.rpartition(">")[2]
        if called not in self._called:
            self._called[called] = self._home_past_routes(*called)
        return self._called[called]

    def _home_past_routes(self, mark: LimitMark, name: str) -> str | None:
        """Find the bucket of a function that another view calls; `name` is its qualified name."""
        homes = {home: function for (limit, function), home in self._known.items() if limit is mark}
        if not homes:
            return marked_views.place_of(mark, name)
        if len(homes) > 1:  # one decorator on several functions
            named = (home for home in homes if marked_views.name_of(homes[home]) == name)
            homes = dict.fromkeys(named)
        return next(iter(homes)) if len(homes) == 1 else None

    def _all(self) -> dict[tuple[LimitMark, object], str]:
        homes: dict[tuple[LimitMark, object], str] = {}
        for endpoint in sorted(self._app.view_functions):
            function = _function_of(self._app.view_functions[endpoint])
            methods = getattr(function, "methods", None) or ("GET",)
            for method in sorted(methods):
                for level in self._levels(endpoint, method):
                    if level.binding or level.view_class is not None:
                        marks = [mark for mark in level.marks if isinstance(mark, LimitMark)]
                        for ordinal, mark in enumerate(marks, 1):
                            home = f"{endpoint} {level.place} {ordinal}"
                            homes.setdefault((mark, function), home)
        return homes


def _function_of(view: object) -> object:
    """Return the innermost function of a view, or its view class; `None` for what has no marks."""
    layers = list(layers_of(view))
    view_classes = (vars(layer)["view_class"] for layer in layers if _has_view_class(layer))
    function = next(view_classes, None) or (layers[-1] if layers else None)
    return function if isinstance(function, Hashable) else None


def _match(adapter: MapAdapter, method: str) -> tuple[Rule | None, Collection[str] | None]:
    """Match a path as Flask does; a missing trailing slash is added."""
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
    return tuple(dict.fromkeys(mark for layer in reversed(layers) for mark in marks_of(layer)))


def _has_view_class(layer: Any) -> bool:
    view_class = getattr(layer, "__dict__", {}).get("view_class")
    return isinstance(view_class, type) and issubclass(view_class, View)


def _class_levels(view_class: type, method: str) -> Iterator[Level]:
    names = [method.lower(), "dispatch_request"]
    if method == "HEAD" and not hasattr(view_class, "head"):
        names[0] = "get"
    for name in names:
        layers = list(layers_of(getattr(view_class, name, None)))
        yield Level(f"method {name}", _marks_on(layers), binding=True)
    for ancestor in view_class.__mro__:
        yield Level(f"class {ancestor.__qualname__}", marks_of(ancestor), view_class=view_class)


def _serves_static_files(endpoint: str, innermost: object) -> bool:
    module = getattr(innermost, "__module__", None)
    return endpoint.rpartition(".")[2] == "static" and module in ("flask.app", "flask.blueprints")
