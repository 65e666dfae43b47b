"""Marks: what decorators and `protect` demand of a route.

A mark counts by its identity: however many wrappers carry it, it is one demand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from .errors import AccessDenied, AuthenticationRequired, FreshTokenRequired, M9MError
from .identity import Identity

USUAL_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"))
ANY_OTHER_METHOD = "any other method"
"""Stands for all the rest where a rule does not say which methods it takes."""

LimitKey = str | Callable[[], str]


class Mark:
    """One demand that a decorator or `protect` makes of a route; counted by identity."""

    __slots__ = ("__weakref__",)

    closes = False
    """Whether it narrows what a route lets through, so that it may always hold."""

    @property
    def demand(self) -> tuple[object, ...]:
        """What it says, apart from which mark it is."""
        return type(self), *(getattr(self, one.name) for one in fields(self))  # type: ignore[arg-type]


class AccessMark(Mark):
    """A demand on who gets through to a route, where an `Opening` lets anyone through."""

    __slots__ = ()

    decorator: ClassVar[str]


@dataclass(frozen=True, eq=False, slots=True)
class Requirement(AccessMark):
    """`@require_auth`: who may use a route."""

    decorator = "@require_auth"

    scopes: tuple[str, ...] = ()
    any_scope: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    schemes: tuple[str, ...] | None = None
    optional: bool = False
    fresh: bool = False

    @property
    def closes(self) -> bool:  # type: ignore[override]
        return not self.optional

    @property
    def demanding(self) -> bool:
        """Whether it asks more than who is calling."""
        return bool(self.scopes or self.any_scope or self.roles or self.fresh)

    def unmet_by(self, identity: Identity | None) -> M9MError | None:
        """Return the error that a caller gets here, or `None` where all is met."""
        if identity is None:
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


@dataclass(frozen=True, eq=False, slots=True)
class SignedURLMark(AccessMark):
    """`@require_signed_url`: only requests whose URL the app has signed for this purpose."""

    purpose: str = ""

    decorator = "@require_signed_url"
    closes = True


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

    def counts(self, method: str) -> bool:
        """Tell whether requests by a method count."""
        if self.methods is None or method in self.methods:
            return True
        return method == ANY_OTHER_METHOD and not self.methods <= USUAL_METHODS


@dataclass(frozen=True, eq=False, slots=True)
class UnlimitedMark(Mark):
    """`@unlimited`: the general rate limit does not count a route."""


@dataclass(frozen=True, eq=False, slots=True)
class CORSMark(Mark):
    """`@cors`: settings of `security.cors` that differ for a route."""

    overrides: Mapping[str, Any]


@dataclass(frozen=True, eq=False, slots=True)
class HeadersMark(Mark):
    """`@security_headers`: settings of `security.headers` that differ for a route."""

    overrides: Mapping[str, Any]


@dataclass(frozen=True, eq=False, slots=True)
class CacheableMark(Mark):
    """`@cacheable`: shared caches may keep what an authenticated route answers."""
