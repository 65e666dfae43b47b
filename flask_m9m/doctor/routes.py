"""Checks of routes: who gets through, and whether everything passes the guard."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from ..marked_views import held_by
from ..policy import Access
from ..wsgi import GuardedApp
from .findings import Finding, Kind, Severity
from .subject import Route, Subject, finds

UNDECIDED = Kind(
    "route-undecided",
    Severity.LOW,
    "nobody decided who may use a route; default_access: authenticated closes it",
    "a rule that nobody wrote down is not known to be meant (ASVS 8.1.1)",
    "put @require_auth or @public (from flask_m9m import public, require_auth) on the view of "
    '<endpoint>, or m9m.protect("<endpoint>", require_auth)',
)
UNPROTECTED = Kind(
    "route-unprotected",
    Severity.MEDIUM,
    "nobody decided who may use a route, and default_access: public opens it",
    "a view whose mark was forgotten is open to everybody (ASVS 8.2.1)",
    "put @require_auth or @public (from flask_m9m import public, require_auth) on the view of "
    "<endpoint>; or security: {default_access: authenticated}",
)
UNPROTECTED_CHANGE = Kind(
    "route-changes-unprotected",
    Severity.HIGH,
    "default_access: public opens a route that changes something, and nobody decided so",
    "everybody can change what it changes (ASVS 8.2.1; RFC 9110 §9.2.1)",
    "put @require_auth or @public (from flask_m9m import public, require_auth) on the view of "
    "<endpoint>; or security: {default_access: authenticated}",
)
UNLIMITED = Kind(
    "route-public-unlimited",
    Severity.LOW,
    "a public route that changes something has no rate limit",
    "everybody may call it as often as they can (ASVS 2.4.1; OWASP API4:2023)",
    'put @rate_limit("10/minute", burst=5) (from flask_m9m import rate_limit) on the view of '
    "<endpoint>; or performance: {rate_limit: {enabled: true}}",
)
SHADOWED = Kind(
    "route-shadowed",
    Severity.MEDIUM,
    "another route has the same path and method, and answers",
    "the view of <endpoint> is never reached, <first> answers, under rules of its own (ASVS 8.1.1)",
    "give <endpoint> a path of its own, or remove one of the two",
)
UNMATCHED = Kind(
    "protect-unmatched",
    Severity.MEDIUM,
    "no endpoint fits a pattern of m9m.protect",
    "it protects nothing: what it was meant for is renamed or gone, or open (ASVS 8.3.1)",
    "correct the pattern in m9m.protect(<pattern>, …); flask m9m routes lists the endpoints",
)
OUTSIDE = Kind(
    "middleware-outside",
    Severity.MEDIUM,
    "middleware was wrapped around app.wsgi_app after M9M(app)",
    "what it answers itself passes no guard and carries no security headers (ASVS 8.3.1, 3.4.1)",
    "wrap it before M9M(app): app.wsgi_app = <middleware>(app.wsgi_app), then M9M(app)",
)
REPLACED = Kind(
    "guard-bypassed",
    Severity.HIGH,
    "app.wsgi_app was replaced after M9M(app), and the guard's wrapper is not in it",
    "errors and mounted apps are answered without security headers (ASVS 3.4.1, 8.3.1)",
    "wrap the app, do not replace it: app.wsgi_app = <middleware>(app.wsgi_app)",
)

_CHANGING = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_MOST_SEEN = 1_000


@finds(UNDECIDED, UNPROTECTED, UNPROTECTED_CHANGE)
def undecided_routes(subject: Subject) -> Iterator[Finding]:
    """Look for routes that the settings' default alone decides about."""
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
    """Look for public routes that change something, as often as anybody likes."""
    general = subject.settings.performance.rate_limit.enabled
    for endpoint, routes in subject.routes_by_endpoint.items():
        found = [
            one
            for one in routes
            if one.method in _CHANGING
            and one.policy.access is Access.PUBLIC
            and not one.policy.undecided
            and not one.policy.limits
            and (one.policy.unlimited or not general)
            and not subject.state.routes.is_own(endpoint)  # the lockout counts log-ins
        ]
        if found:
            yield UNLIMITED.at(_where(found), endpoint=endpoint)


@finds(SHADOWED)
def shadowed_routes(subject: Subject) -> Iterator[Finding]:
    """Look for routes that come too late: of two alike, Werkzeug takes the first."""
    firsts: dict[object, Route] = {}
    for route in subject.routes:
        rule = route.rule
        if rule.build_only:
            continue
        alike = (rule.rule, rule.subdomain, rule.host, rule.websocket, route.method)
        first = firsts.setdefault(alike, route)
        if first.rule.endpoint != rule.endpoint:
            yield SHADOWED.at(str(route), endpoint=rule.endpoint, first=first.rule.endpoint)


@finds(UNMATCHED)
def unmatched_patterns(subject: Subject) -> Iterator[Finding]:
    """Look for protections that fit nothing."""
    for pattern in subject.state.protections.unmatched(subject.app.view_functions):
        yield UNMATCHED.at(f"m9m.protect({pattern!r})", pattern=repr(pattern))


@finds(OUTSIDE, REPLACED)
def outer_middleware(subject: Subject) -> Iterator[Finding]:
    """Look for what stands in front of the guard.

    `ProxyFix` may, where no proxies are trusted (see `proxies.doubled_proxy_fix`).
    """
    outermost: object = subject.app.wsgi_app
    while isinstance(outermost, ProxyFix):
        outermost = outermost.app
    if not isinstance(outermost, GuardedApp):
        kind = OUTSIDE if _holds_guard(outermost) else REPLACED
        name = str(getattr(outermost, "__qualname__", None) or type(outermost).__qualname__)
        yield kind.at(f"app.wsgi_app: {name}", middleware=name)


CHECKS = (undecided_routes, unlimited_routes, shadowed_routes, unmatched_patterns, outer_middleware)


def _holds_guard(outermost: object) -> bool:
    """Tell whether a middleware leads to the guard's wrapper, by whatever names it keeps it."""
    waiting, seen = [outermost], {id(outermost)}
    while waiting and len(seen) < _MOST_SEEN:
        layer = waiting.pop()
        if isinstance(layer, GuardedApp):
            return True
        if isinstance(layer, Flask):  # which keeps what is outermost, and so leads in a circle
            continue
        for inner in filter(callable, _kept_in(layer)):
            if id(inner) not in seen:
                seen.add(id(inner))
                waiting.append(inner)
    return False


def _kept_in(layer: object) -> Iterator[object]:
    """Yield what an object keeps: its attributes, and what a function encloses."""
    yield from getattr(layer, "__dict__", {}).values()
    for name in ("func", "__self__", *_slots(layer)):
        yield getattr(layer, name, None)
    yield from held_by(layer)


def _slots(layer: object) -> Iterator[str]:
    for one in type(layer).__mro__:
        slots = vars(one).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _where(routes: list[Route]) -> str:
    methods = ", ".join(dict.fromkeys(one.method for one in routes))
    rules = ", ".join(dict.fromkeys(one.rule.rule for one in routes))
    return f"{methods} {rules} ({routes[0].rule.endpoint})"
