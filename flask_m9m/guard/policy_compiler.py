"""Policy compiler: merges the settings and the marks around a view into its route's policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..auth.schemes.app_scheme import BUILT_IN
from ..auth.schemes.authenticator import Authenticator
from ..errors import Problem, SettingsError
from ..http.cors import CORSPolicy
from ..http.headers import SecurityHeaders
from ..ratelimit.limit import limit_name, parse_limits
from ..settings.models import CORSSettings, HeadersSettings, Settings
from .marks import (
    CacheableMark,
    CORSMark,
    Demand,
    HeadersMark,
    LimitMark,
    Mark,
    Opening,
    Requirement,
    UnlimitedMark,
)
from .policy import SETTINGS, Access, Level, RouteLimit, RoutePolicy

T = TypeVar("T")
S = TypeVar("S", bound=BaseModel)


class PolicyCompiler:
    """Compiles policies from levels of marks, under one app's settings.

    Args:
        settings: the app's settings.
        authenticators: the enabled schemes, in the order of their challenges.

    Attributes:
        home_of: returns the place that names the bucket of a limit on a function which several
            routes reach; `None` for any other limit.
    """

    def __init__(self, settings: Settings, authenticators: Sequence[Authenticator]) -> None:
        self._settings = settings
        self._authenticators = tuple(authenticators)
        self._development = settings.development.enabled
        self._cors = cors_policy(settings.security.cors, development=self._development)
        self._headers = header_policy(settings.security.headers, development=self._development)
        self.home_of: Callable[[LimitMark, str], str | None] = lambda mark, route: None

    def compile(self, route: str, levels: Iterable[Level], method: str) -> RoutePolicy:
        """Compile the policy of a route.

        Args:
            route: the route's name in messages, and the name of its limits.
            levels: the levels of marks, the nearest to the view first.
            method: the request's method; a limit may apply to some methods only.

        Raises:
            SettingsError: the marks contradict each other or the settings, or name a scheme
                that is switched off.
        """
        levels = tuple(levels)
        access, decided_by, closing = self._access(route, levels)
        authenticators = self._schemes(route, closing)
        unlimited, unlimited_decided_by = _nearest(levels, UnlimitedMark)
        cors, cors_decided_by = self._nearest_cors(route, levels)
        headers, headers_decided_by = self._nearest_headers(route, levels)
        vary = ["Origin"] if cors is not None and cors.varies else []
        if authenticators:
            vary += ["Authorization", "Cookie", self._settings.security.api_keys.header]
        demands = _demands(route, closing)
        limits = self._limits(route, levels, method)
        return RoutePolicy(
            route=route,
            access=access,
            decided_by=decided_by,
            demands=demands,
            authenticators=authenticators,
            limits=limits,
            unlimited=unlimited is not None,
            unlimited_decided_by=unlimited_decided_by,
            cors=cors,
            cors_decided_by=cors_decided_by,
            headers=headers,
            headers_decided_by=headers_decided_by,
            demanding=bool(demands or limits),
            marks=frozenset((*closing, *_limit_marks(levels))),
            view_class=next((level.view_class for level in levels if level.view_class), None),
            class_marks=frozenset(
                mark for level in levels if level.view_class for mark in level.marks
            ),
            cacheable=_nearest(levels, CacheableMark)[0] is not None,
            vary=tuple(vary),
        )

    def unrouted(self) -> RoutePolicy:
        """Compile the policy of requests that match no route."""
        return self.compile("none", [Level("no route", [Opening()])], "GET")

    def mounted(self) -> RoutePolicy:
        """Compile the policy of WSGI apps mounted inside: that of an undecided route."""
        return self.compile("mounted app", [], "GET")

    def for_mark(self, mark: Mark, view: str, method: str) -> RoutePolicy:
        """Compile the policy of a single mark, for a view called other than by its own route."""
        marks = (mark,) if isinstance(mark, Demand) else (mark, Opening())
        return self.compile(view, [Level("view", marks)], method)

    def _access(
        self, route: str, levels: Sequence[Level]
    ) -> tuple[Access, str, tuple[Demand, ...]]:
        """Decide on access; return it, the places that decided on it, and its demands.

        Demands add up from the view outwards, until a place opens or replaces what stands further
        out. Those of binding levels apply even then.
        """
        closing: dict[Demand, str] = {}
        opened_by: str | None = None
        for level in levels:
            own = [mark for mark in level.marks if isinstance(mark, Demand)]
            opened = any(isinstance(mark, Opening) for mark in level.marks)
            if own and opened and (opened_by is None or level.binding):
                both = f"both @public and {own[0].decorator} ({level.place})"
                raise _contradiction(route, both)
            for demand in own:
                if opened_by is None or (level.binding and demand.closes):
                    closing.setdefault(demand, level.place)
            if opened_by is None and (opened or any(demand.replaces for demand in own)):
                opened_by = level.place
        if closing:
            places = ", ".join(dict.fromkeys(closing.values()))
            return _access_under(closing), places, tuple(closing)
        if opened_by is not None:
            return Access.PUBLIC, opened_by, ()
        if self._settings.security.default_access == "authenticated":
            return Access.AUTHENTICATED, SETTINGS, (Requirement(),)
        return Access.PUBLIC, SETTINGS, ()

    def _schemes(self, route: str, demands: Iterable[Demand]) -> tuple[Authenticator, ...]:
        """List the schemes that every demand accepts; empty if no demand authenticates."""
        authenticating = [demand for demand in demands if demand.authenticates]
        if not authenticating:
            return ()
        accepted = self._authenticators
        known = BUILT_IN.union(authenticator.scheme for authenticator in accepted)
        for demand in authenticating:
            if demand.schemes is not None:
                if unknown := set(demand.schemes) - known:
                    names = ", ".join(sorted(known))
                    raise _contradiction(route, f"unknown scheme {min(unknown)!a} (known: {names})")
                accepted = tuple(
                    authenticator
                    for authenticator in accepted
                    if authenticator.scheme in demand.schemes
                )
        if not accepted:
            _refuse_disjoint(route, authenticating, known)
            switched_on = (
                ", ".join(authenticator.scheme for authenticator in self._authenticators) or "none"
            )
            raise _contradiction(
                route,
                "it needs authentication, and every scheme that it accepts is switched off "
                f"(switched on: {switched_on}; for JWT set M9M_JWT_SECRET)",
            )
        return accepted

    def _limits(self, route: str, levels: Iterable[Level], method: str) -> tuple[RouteLimit, ...]:
        method = "GET" if method == "HEAD" else method
        limits = []
        ordinals: Counter[str] = Counter()
        for number, (mark, place) in enumerate(_limit_marks(levels).items(), 1):
            ordinals[place] += 1
            name = mark.name or limit_name(route if number == 1 else f"{route}-{number}")
            # A name that the app chose and a route's own name never share a bucket. A mark around
            # several methods has the same bucket for each of them.
            # A function's limit has one bucket, by whichever of its routes the function is reached.
            home = self.home_of(mark, route) or f"{route} {place} {ordinals[place]}"
            scope = f"name {name}" if mark.name else f"route {home}"
            fixed = None
            if isinstance(mark.limits, str):
                fixed = parse_limits(mark.limits, burst=mark.burst, name=name, scope=scope)
            if mark.counts(method):
                limits.append(RouteLimit(mark, name, scope, place, fixed))
        return tuple(limits)

    def _nearest_cors(self, route: str, levels: Iterable[Level]) -> tuple[CORSPolicy | None, str]:
        mark, place = _nearest(levels, CORSMark)
        if mark is None:
            return self._cors, place
        own = overridden(self._settings.security.cors, mark.overrides, f"@cors of {route}")
        return cors_policy(own, development=self._development), place

    def _nearest_headers(
        self, route: str, levels: Iterable[Level]
    ) -> tuple[SecurityHeaders | None, str]:
        mark, place = _nearest(levels, HeadersMark)
        if mark is None:
            return self._headers, place
        own = overridden(
            self._settings.security.headers, mark.overrides, f"@security_headers of {route}"
        )
        return header_policy(own, development=self._development), place


def overridden(section: S, overrides: Mapping[str, Any], where: str) -> S:
    """Return a section of the settings with some of its values replaced.

    Raises:
        SettingsError: a value is wrong, alone or beside those of the settings.
    """
    try:
        return type(section).model_validate({**dict(section), **overrides})
    except ValidationError as error:
        problems = [
            Problem(
                f"{where}: {'.'.join(map(str, detail['loc']))}",
                repr(detail["input"])[:80],
                detail["msg"],
            )
            for detail in error.errors()
        ]
        raise SettingsError(problems) from None


def cors_policy(settings: CORSSettings, *, development: bool) -> CORSPolicy | None:
    """Build the policy that `security.cors` describes."""
    if not settings.enabled:
        return None
    return CORSPolicy(
        allowed_origins=settings.allowed_origins,
        allowed_methods=settings.allowed_methods,
        allowed_headers=settings.allowed_headers,
        expose_headers=settings.expose_headers,
        allow_credentials=settings.allow_credentials,
        max_age=settings.max_age,
        any_origin_without_credentials=development,
    )


def header_policy(settings: HeadersSettings, *, development: bool) -> SecurityHeaders | None:
    """Build the security headers that `security.headers` describes."""
    if not settings.enabled:
        return None
    return SecurityHeaders(settings.effective(), development=development)


def _refuse_disjoint(route: str, demands: Iterable[Demand], known: frozenset[str]) -> None:
    """Refuse demands that have no scheme in common, whatever is switched on."""
    lists = [demand.schemes for demand in demands if demand.schemes is not None]
    if len(lists) > 1 and not known.intersection(*lists):
        found = " and ".join(f"schemes={list(schemes)}" for schemes in lists)
        remedy = "with instead=True the nearer @require_auth replaces the others"
        raise _contradiction(route, f"{found} have no scheme in common; {remedy}")


def _access_under(demands: Iterable[Demand]) -> Access:
    authenticating = [demand for demand in demands if demand.authenticates]
    if not authenticating:
        return Access.SIGNED
    optional = all(demand.optional for demand in authenticating)
    return Access.OPTIONAL if optional else Access.AUTHENTICATED


def _demands(route: str, closing: Iterable[Demand]) -> tuple[Demand, ...]:
    """List the demands beyond a valid credential, without duplicates.

    Raises:
        SettingsError: no request can meet two of them at once.
    """
    demands: dict[object, Demand] = {}
    for demand in closing:
        if not demand.asks_more:
            continue
        for other in demands.values():
            if conflict := demand.conflict_with(other):
                raise _contradiction(route, conflict)
        demands.setdefault(demand.meaning, demand)
    # Rights are checked before signatures, regardless of the decorators' order.
    return tuple(sorted(demands.values(), key=lambda demand: not demand.authenticates))


def _nearest(levels: Iterable[Level], kind: type[T]) -> tuple[T | None, str]:
    """Return the nearest mark of a kind and its place; `None` and `settings` without one."""
    for level in levels:
        for mark in reversed(level.marks):
            if isinstance(mark, kind):
                return mark, level.place
    return None, SETTINGS


def _limit_marks(levels: Iterable[Level]) -> dict[LimitMark, str]:
    return _nearest_places(
        (level.place, mark)
        for level in levels
        for mark in level.marks
        if isinstance(mark, LimitMark)
    )


def _nearest_places(found: Iterable[tuple[str, T]]) -> dict[T, str]:
    """Map each mark to its place nearest to the view."""
    places: dict[T, str] = {}
    for place, mark in found:
        places.setdefault(mark, place)
    return places


def _contradiction(route: str, found: str) -> SettingsError:
    return SettingsError([Problem(f"route {route}", found, "change its marks or the settings")])
