"""Checks of routes: access rules, rate limits, shadowed routes, and middleware around the guard."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from ...extension.marked_views import closure_values
from ...guard.policy import Access
from ...wsgi.guarded_app import GuardedApp
from .findings import Finding, Kind, Severity
from .subject import Route, Subject, finds

UNDECIDED = Kind(
    "route-undecided",
    Severity.LOW,
    "a route has no access rule of its own; default_access: authenticated protects it",
    "neither a decorator nor m9m.protect says who may use the route: only the default protects it, "
    "and nobody can tell whether that is intended (ASVS 8.1.1)",
    "put @require_auth or @public (from flask_m9m import public, require_auth) on the view of "
    '<endpoint>; or: m9m.protect("<endpoint>", require_auth)',
)
UNPROTECTED = Kind(
    "route-unprotected",
    Severity.MEDIUM,
    "a route has no access rule of its own, and default_access: public opens it",
    "neither a decorator nor m9m.protect says who may use the route: anyone may use it, which can "
    "be an oversight (ASVS 8.2.1)",
    "put @require_auth or @public (from flask_m9m import public, require_auth) on the view of "
    "<endpoint>; or security: {default_access: authenticated}",
)
UNPROTECTED_CHANGE = Kind(
    "route-changes-unprotected",
    Severity.HIGH,
    "a route that changes data has no access rule of its own, and default_access: public opens it",
    "neither a decorator nor m9m.protect says who may use the route: anyone can change the data, "
    "which can be an oversight (ASVS 8.2.1; RFC 9110 §9.2.1)",
    "put @require_auth or @public (from flask_m9m import public, require_auth) on the view of "
    "<endpoint>; or security: {default_access: authenticated}",
)
UNLIMITED = Kind(
    "route-public-unlimited",
    Severity.LOW,
    "a public route that changes data has no rate limit",
    "the route is public, changes data and has no rate limit: it can be called for spam, or to use "
    "up the app's resources (ASVS 2.4.1; OWASP API4:2023)",
    'put @rate_limit("10/minute", burst=5) (from flask_m9m import rate_limit) on the view of '
    "<endpoint>; or performance: {rate_limit: {enabled: true}}",
)
SHADOWED = Kind(
    "route-shadowed",
    Severity.MEDIUM,
    "another route with the same path and method receives the requests",
    "<first> has the same path and method and comes first: the view of <endpoint> is never called, "
    "and its access rules do not apply (ASVS 8.1.1)",
    "give <endpoint> a path of its own, or remove one of the two",
)
UNMATCHED = Kind(
    "protect-unmatched",
    Severity.HIGH,
    "m9m.protect names a pattern or a blueprint that the app does not have",
    "no endpoint matches, so that the marks protect nothing and the app does not start: the view "
    "was renamed or removed, or the blueprint is not registered (ASVS 8.3.1)",
    "correct the pattern or register the blueprint in m9m.protect(<pattern>, …); this lists the "
    "endpoints: flask m9m routes",
)
OUTSIDE = Kind(
    "middleware-outside",
    Severity.MEDIUM,
    "middleware was wrapped around app.wsgi_app after M9M(app)",
    "responses that this middleware makes itself skip the guard: no access rules, no rate limits, "
    "no security headers (ASVS 8.3.1, 3.4.1)",
    "wrap it before M9M(app): app.wsgi_app = <middleware>(app.wsgi_app), then M9M(app)",
)
REPLACED = Kind(
    "guard-bypassed",
    Severity.HIGH,
    "app.wsgi_app was replaced after M9M(app), and does not contain the guard's wrapper",
    "the guard's wrapper is not in app.wsgi_app: error responses and mounted apps have no security "
    "headers (ASVS 3.4.1, 8.3.1)",
    "wrap the app instead of replacing it: app.wsgi_app = <middleware>(app.wsgi_app)",
)

_CHANGING = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_MOST_SEEN = 1_000


@finds(UNDECIDED, UNPROTECTED, UNPROTECTED_CHANGE)
def undecided_routes(subject: Subject) -> Iterator[Finding]:
    """Find routes whose access only `default_access` decides."""
    closed = subject.settings.security.default_access == "authenticated"
    for endpoint, routes in subject.routes_by_endpoint.items():
        undecided = [route for route in routes if route.policy.undecided]
        if not undecided:
            continue
        kind = UNDECIDED if closed else UNPROTECTED
        if not closed and any(route.method in _CHANGING for route in undecided):
            kind = UNPROTECTED_CHANGE
        yield kind.at(_where(undecided), endpoint=endpoint)


@finds(UNLIMITED)
def unlimited_routes(subject: Subject) -> Iterator[Finding]:
    """Find public routes that change data and have no rate limit."""
    general = subject.settings.performance.rate_limit.enabled
    for endpoint, routes in subject.routes_by_endpoint.items():
        found = [
            route
            for route in routes
            if route.method in _CHANGING
            and route.policy.access is Access.PUBLIC
            and not route.policy.undecided
            and not route.policy.limits
            and (route.policy.unlimited or not general)
            and not subject.state.routes.is_own(endpoint)  # the lockout throttles log-ins
        ]
        if found:
            yield UNLIMITED.at(_where(found), endpoint=endpoint)


@finds(SHADOWED)
def shadowed_routes(subject: Subject) -> Iterator[Finding]:
    """Find routes that are never reached: of two equal rules, Werkzeug uses the first."""
    firsts: dict[object, Route] = {}
    for route in subject.routes:
        rule = route.rule
        if rule.build_only:
            continue
        key = (rule.rule, rule.subdomain, rule.host, rule.websocket, route.method)
        first = firsts.setdefault(key, route)
        if first.rule.endpoint != rule.endpoint:
            yield SHADOWED.at(str(route), endpoint=rule.endpoint, first=first.rule.endpoint)


@finds(UNMATCHED)
def unmatched_patterns(subject: Subject) -> Iterator[Finding]:
    """Find blueprints and patterns of `m9m.protect` that the app does not have."""
    for target, _, _ in subject.state.routes.unmatched():
        yield UNMATCHED.at(f"m9m.protect({target})", pattern=target)


@finds(OUTSIDE, REPLACED)
def outer_middleware(subject: Subject) -> Iterator[Finding]:
    """Find middleware outside the guard's wrapper.

    `ProxyFix` is allowed there (`proxies.doubled_proxy_fix` examines it).
    """
    outermost: object = subject.app.wsgi_app
    while isinstance(outermost, ProxyFix):
        outermost = outermost.app
    if not isinstance(outermost, GuardedApp):
        kind = OUTSIDE if _contains_guard(outermost) else REPLACED
        name = str(getattr(outermost, "__qualname__", None) or type(outermost).__qualname__)
        yield kind.at(f"app.wsgi_app: {name}", middleware=name)


CHECKS = (undecided_routes, unlimited_routes, shadowed_routes, unmatched_patterns, outer_middleware)


def _contains_guard(outermost: object) -> bool:
    """Tell whether the guard's wrapper can be reached from a middleware.

    Any attribute, slot or closure may refer to it.
    """
    waiting, seen = [outermost], {id(outermost)}
    while waiting and len(seen) < _MOST_SEEN:
        layer = waiting.pop()
        if isinstance(layer, GuardedApp):
            return True
        if isinstance(layer, Flask):  # it refers back to the outermost layer
            continue
        for inner in filter(callable, _references_of(layer)):
            if id(inner) not in seen:
                seen.add(id(inner))
                waiting.append(inner)
    return False


def _references_of(layer: object) -> Iterator[object]:
    """Yield the objects in the attributes, the slots and the closure of an object."""
    yield from getattr(layer, "__dict__", {}).values()
    for name in ("func", "__self__", *_slots(layer)):
        yield getattr(layer, name, None)
    yield from closure_values(layer)


def _slots(layer: object) -> Iterator[str]:
    for cls in type(layer).__mro__:
        slots = vars(cls).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _where(routes: list[Route]) -> str:
    methods = ", ".join(dict.fromkeys(route.method for route in routes))
    rules = ", ".join(dict.fromkeys(route.rule.rule for route in routes))
    return f"{methods} {rules} ({routes[0].rule.endpoint})"
