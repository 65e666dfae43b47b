"""Marks: the rules that decorators, `protect` and prefix policies attach to a route.

Marks are compared by identity: a mark that several wrappers carry is enforced once. The `of`
method of each kind checks the arguments of its decorator and makes the mark.

A new demand on callers takes one subclass of `Demand` and one decorator.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from ..auth.identity import Identity, names
from ..auth.signed_links import signed_host
from ..errors import (
    AccessDenied,
    AuthenticationRequired,
    FreshTokenRequired,
    InvalidSignature,
    M9MError,
)
from ..ratelimit.limit import RateLimit, parse_limits
from ..settings.arguments import check_method, check_type
from ..settings.sources import settings_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ..auth.signed_links import Links

USUAL_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"))
ANY_OTHER_METHOD = "any other method"
"""Represents every method that a route does not list."""

LimitKey = str | Callable[[], str]


class IdentifiedRequest(Protocol):
    """The part of an `Exchange` that demands read and change."""

    identity: Identity | None
    rule: object
    signed: bool


class Mark:
    """A rule that a decorator or `protect` attaches to a route; compared by identity."""

    __slots__ = ("__weakref__",)

    closes = False
    """Whether the mark only restricts requests, so that it applies in any order of decorators."""

    @property
    def meaning(self) -> tuple[object, ...]:
        """The mark's kind and values: equal for two marks with the same effect."""
        return type(self), *(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


class Demand(Mark):
    """A condition on who gets through to a route; an `Opening` lifts it.

    Attributes:
        decorator: its decorator, in messages.
        authenticates: whether it asks for a credential.
        schemes: the authentication schemes that it accepts; `None` for every enabled one.
        optional: whether a request without a credential passes.
        instead: whether it replaces what stands further from the view.
        scopes: the scopes that it asks for, all of them, for OpenAPI.
        component: its Security Scheme Object in OpenAPI, unless the schemes' are all it needs.
    """

    __slots__ = ()

    decorator: ClassVar[str]
    authenticates: ClassVar[bool] = False
    component: ClassVar[str | None] = None
    schemes: tuple[str, ...] | None = None
    optional: bool = False
    instead: bool = False
    scopes: tuple[str, ...] = ()

    @property
    def replaces(self) -> bool:
        """Whether demands that stand further from the view no longer apply."""
        return self.optional or self.instead

    @property
    def asks_more(self) -> bool:
        """Whether it asks for more than a valid credential."""
        return True

    @property
    def forbids(self) -> bool:
        """Whether it can answer 403."""
        return True

    def unmet_by(
        self, exchange: IdentifiedRequest, environ: WSGIEnvironment, links: Links
    ) -> M9MError | None:
        """Check whether a request meets the demand.

        Args:
            exchange: the request's exchange.
            environ: the request.
            links: verifies signed URLs.

        Returns:
            The error for the client, or `None` if the request meets the demand.
        """
        raise NotImplementedError

    def conflict_with(self, other: Demand) -> str | None:
        """Explain why no request can meet both demands; return `None` if one can."""
        return None

    def wording(self) -> list[str]:
        """List the conditions in words, for `flask m9m routes`."""
        raise NotImplementedError

    def parameters(self) -> dict[str, Any]:
        """Return its values, for the `x-m9m` extension of an OpenAPI document."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, slots=True)
class Requirement(Demand):
    """`@require_auth`: a valid credential with the required rights."""

    scopes: tuple[str, ...] = ()
    any_scope: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    schemes: tuple[str, ...] | None = None
    optional: bool = False
    fresh: bool = False
    instead: bool = False

    decorator = "@require_auth"
    authenticates = True

    @classmethod
    def of(
        cls,
        *,
        scopes: str | Collection[str] = (),
        any_scope: str | Collection[str] = (),
        roles: str | Collection[str] = (),
        schemes: str | Collection[str] | None = None,
        optional: bool = False,
        fresh: bool = False,
        instead: bool = False,
    ) -> Requirement:
        """Check the arguments of `@require_auth` and make its mark.

        Raises:
            ValueError: the name of a scope or role cannot be sent in a header field.
        """
        check_type(bool, optional=optional, fresh=fresh, instead=instead)
        return cls(
            scopes=names("scopes", scopes),
            any_scope=names("any_scope", any_scope),
            roles=names("roles", roles),
            schemes=None if schemes is None else names("schemes", schemes),
            optional=optional,
            fresh=fresh,
            instead=instead,
        )

    @property
    def closes(self) -> bool:  # type: ignore[override]
        return not self.optional

    @property
    def asks_more(self) -> bool:
        return bool(self.scopes or self.any_scope or self.roles or self.fresh)

    @property
    def forbids(self) -> bool:
        return bool(self.scopes or self.any_scope or self.roles)

    def unmet_by(
        self, exchange: IdentifiedRequest, environ: WSGIEnvironment, links: Links
    ) -> M9MError | None:
        identity = exchange.identity
        if identity is None or (self.schemes is not None and identity.scheme not in self.schemes):
            return None if self.optional else AuthenticationRequired()
        if self.fresh and identity.claims.get("fresh") is not True:
            return FreshTokenRequired()
        scopes_met = identity.scopes.issuperset(self.scopes)
        if self.any_scope and identity.scopes.isdisjoint(self.any_scope):
            scopes_met = False
        if scopes_met and not (self.roles and identity.roles.isdisjoint(self.roles)):
            return None
        denied = AccessDenied()
        denied.scopes = () if scopes_met else (*self.scopes, *self.any_scope)
        return denied

    def wording(self) -> list[str]:
        needs = [f"scope {scope}" for scope in self.scopes]
        needs += [f"any scope of {' '.join(self.any_scope)}"] * bool(self.any_scope)
        needs += [f"role {' or '.join(self.roles)}"] * bool(self.roles)
        needs += ["a fresh token"] * self.fresh
        return needs

    def parameters(self) -> dict[str, Any]:
        values = {
            "scopes": list(self.scopes),
            "any_scope": list(self.any_scope),
            "roles": list(self.roles),
            "fresh": self.fresh,
        }
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True, eq=False, slots=True)
class SignedURLMark(Demand):
    """`@require_signed_url`: a URL that the app has signed for this purpose."""

    purpose: str = ""
    instead: bool = False

    decorator = "@require_signed_url"
    component = "signed_url"
    closes = True

    def unmet_by(
        self, exchange: IdentifiedRequest, environ: WSGIEnvironment, links: Links
    ) -> M9MError | None:
        if not links.admits(environ, self.purpose, signed_host(exchange.rule, environ)):
            return InvalidSignature()
        exchange.signed = True
        return None

    def conflict_with(self, other: Demand) -> str | None:
        if isinstance(other, SignedURLMark) and other.purpose != self.purpose:
            found = f"{self.decorator} for several purposes at once: a URL has one signature"
            return f"{found}; with instead=True the nearer one replaces the other"
        return None

    def wording(self) -> list[str]:
        return [f"a URL signed for {self.purpose}" if self.purpose else "a signed URL"]

    def parameters(self) -> dict[str, Any]:
        return {"purpose": self.purpose}


@dataclass(frozen=True, eq=False, slots=True)
class Opening(Mark):
    """`@public`: anyone may use a route."""


@dataclass(frozen=True, eq=False, slots=True)
class LimitMark(Mark):
    """`@rate_limit`: how often a route may be used."""

    limits: str | Callable[[], str]
    burst: int | None = None
    key: LimitKey | None = None
    cost: int | Callable[[], int] = 1
    name: str | None = None
    methods: frozenset[str] | None = None
    exempt_when: Callable[[], bool] | None = None
    count: Callable[[Any], bool] | None = None
    shadow: bool = False

    closes = True

    @classmethod
    def of(
        cls,
        limits: str | Callable[[], str],
        *,
        key: LimitKey | None = None,
        methods: Collection[str] | None = None,
        **options: Any,
    ) -> LimitMark:
        """Check the arguments of `@rate_limit` and make its mark.

        Raises:
            ValueError: an argument has a wrong type or is out of range.
        """
        mark = cls(
            limits, key=key, methods=None if methods is None else _methods(methods), **options
        )
        _check_numbers(mark)
        if key not in (None, "address", "identity") and not callable(key):
            raise ValueError(f"key must be 'address', 'identity' or a callable, found {key!r}")
        for argument in ("exempt_when", "count"):
            value = getattr(mark, argument)
            if value is not None and not callable(value):
                raise ValueError(f"{argument} must be a callable, found {value!r}")
        for argument in ("limits", "key", "cost", "exempt_when", "count"):
            if _is_coroutine_function(getattr(mark, argument)):
                raise ValueError(f"{argument} must be a plain function, found a coroutine function")
        if not isinstance(mark.shadow, bool):
            raise ValueError(f"shadow must be True or False, found {mark.shadow!r}")
        return mark

    def counts(self, method: str) -> bool:
        """Tell whether the limit counts requests by a method."""
        if self.methods is None or method in self.methods:
            return True
        return method == ANY_OTHER_METHOD and not self.methods <= USUAL_METHODS


def _check_numbers(mark: LimitMark) -> None:
    limits, burst, cost = mark.limits, mark.burst, mark.cost
    check_type(str | None, name=mark.name)
    RateLimit(1, 1, 1 if burst is None else burst, "default" if mark.name is None else mark.name)
    if isinstance(limits, str):
        most = min(limit.burst for limit in parse_limits(limits, burst=burst))
    elif callable(limits):
        most = sys.maxsize if burst is None else burst
    else:
        raise ValueError(f"limits must be text such as '100/hour' or a callable, found {limits!r}")
    if not callable(cost) and (type(cost) is not int or not 1 <= cost <= most):
        raise ValueError(f"cost must be 1 to the limit's burst of {most}, found {cost!r}")


def _is_coroutine_function(value: object) -> bool:
    call = getattr(type(value), "__call__", None)  # noqa: B004  # may be a coroutine function
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(call)


def _methods(methods: Collection[str]) -> frozenset[str]:
    """Normalize methods for `LimitMark.counts`: upper case, `HEAD` counted as `GET`."""
    if isinstance(methods, str):
        raise ValueError(f"methods must be a list such as ['GET', 'POST'], found {methods!r}")
    check_type(Collection, methods=methods)
    for method in methods:
        check_method("each of methods", method)
    if not methods:
        raise ValueError("methods must have at least one method: without any, nothing is limited")
    upper = frozenset(method.upper() for method in methods)
    return upper - {"HEAD"} | {"GET"} if "HEAD" in upper else upper


@dataclass(frozen=True, eq=False, slots=True)
class UnlimitedMark(Mark):
    """`@unlimited`: a route is exempt from the general rate limit."""


@dataclass(frozen=True, eq=False, slots=True)
class OverridingMark(Mark):
    """Settings of one section of `security` that differ for a route."""

    overrides: Mapping[str, Any]

    section: ClassVar[str]
    decorator: ClassVar[str]

    @classmethod
    def of(cls, **overrides: Any) -> Self:
        """Check the decorator's arguments, and make its mark.

        Raises:
            SettingsError: a key is unknown, or a value is not accepted.
        """
        settings_of({"security": {cls.section: overrides}}, cls.decorator)
        return cls(overrides)


class CORSMark(OverridingMark):
    """`@cors`: settings of `security.cors` that differ for a route."""

    __slots__ = ()

    section = "cors"
    decorator = "@cors"


class HeadersMark(OverridingMark):
    """`@security_headers`: settings of `security.headers` that differ for a route."""

    __slots__ = ()

    section = "headers"
    decorator = "@security_headers"


@dataclass(frozen=True, eq=False, slots=True)
class CacheableMark(Mark):
    """`@cacheable`: shared caches may store the responses of an authenticated route."""
