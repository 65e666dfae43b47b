"""Route policies: what a route demands of a request, and adds to its response."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from ..auth.schemes.authenticator import Authenticator
from ..http.cors import RESPONSE_FIELDS, CORSPolicy
from ..http.headers import SecurityHeaders
from ..ratelimit.limit import RateLimit, parse_limits
from .marks import Demand, LimitMark, Mark

ERROR_VARY = ("Accept",)
SETTINGS = "settings"
"""The place of decisions that no mark makes."""

FLASK = "Flask"
"""The place of Flask's decisions: its static files and automatic `OPTIONS` are public."""

SHARED_CACHE_FIELDS = frozenset(
    ("cdn-cache-control", "cloudflare-cdn-cache-control", "surrogate-control")
)
"""Fields that shared caches obey in place of `Cache-Control` (RFC 9213)."""

_CONTESTED = RESPONSE_FIELDS.union(
    SHARED_CACHE_FIELDS,
    ("vary", "cache-control", "expires", "www-authenticate", "retry-after"),
    ("ratelimit", "ratelimit-policy", "x-request-id"),
    ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
)


class Access(StrEnum):
    """The kinds of access to a route."""

    PUBLIC = "public"
    OPTIONAL = "optional"
    AUTHENTICATED = "authenticated"
    SIGNED = "signed"


@dataclass(frozen=True, slots=True)
class Level:
    """The marks found in one place; lists of levels begin with the nearest to the view.

    Attributes:
        place: the place in messages: `view`, `blueprint api`, `pattern api-docs.*`.
        marks: the marks in the order in which they were applied, the innermost first.
        binding: whether their demands apply even if a nearer level has `@public`.
        view_class: the view class, if the marks are on it or on a base of it.
    """

    place: str
    marks: Sequence[Mark]
    binding: bool = False
    view_class: type | None = None


@dataclass(frozen=True, eq=False, slots=True)
class RouteLimit:
    """A `@rate_limit` applied to a route.

    Attributes:
        mark: the decorator's mark.
        name: the name of its limits.
        scope: the scope of its limits, as in `RateLimit`.
        place: the place of the decorator, as in `Level`.
        fixed: its limits; `None` if a callable returns them.
        plain: its only limit, if every request costs the same, regardless of the response.
    """

    mark: LimitMark
    name: str
    scope: str
    place: str
    fixed: tuple[RateLimit, ...] | None
    plain: RateLimit | None = field(init=False)

    def __post_init__(self) -> None:
        mark, fixed = self.mark, self.fixed
        computed = callable(mark.cost) or mark.exempt_when is not None
        usual = not (computed or mark.shadow or mark.count is not None)
        plain = fixed[0] if usual and fixed is not None and len(fixed) == 1 else None
        object.__setattr__(self, "plain", plain)

    def limits(self) -> tuple[RateLimit, ...]:
        """Return the limits in force for this request.

        Raises:
            ValueError: the app's callable returned text that is not a limit.
        """
        if self.fixed is not None:
            return self.fixed
        notation = self.mark.limits
        assert callable(notation)  # noqa: S101  # the compiler parses every string
        return parse_limits(notation(), burst=self.mark.burst, name=self.name, scope=self.scope)


@dataclass(frozen=True, eq=False)
class RoutePolicy:
    """What a route demands of requests by one method, and adds to their responses.

    Attributes:
        route: the route's name: in Flask, its endpoint.
        access: the kind of access.
        decided_by: the places that decided on access: those of levels, or `settings`.
        demands: the demands beyond a valid credential.
        authenticators: the schemes that the route accepts.
        limits: the rate limits of the route, besides the general limit.
        unlimited: whether the route is exempt from the general limit.
        unlimited_decided_by: the place that decided on that exemption.
        cors: the CORS policy; `None` if CORS is switched off.
        cors_decided_by: the place that decided on the CORS policy.
        headers: the security headers; `None` if they are switched off.
        headers_decided_by: the place that decided on the security headers.
        demanding: whether there are demands or limits to enforce.
        marks: the marks that this policy enforces.
        view_class: the view class, if the route has a class-based view.
        class_marks: the marks of that class and its bases, the overridden ones too.
        cacheable: whether shared caches may store authenticated responses.
        vary: the request fields on which the response depends.
    """

    route: str
    access: Access
    decided_by: str
    demands: tuple[Demand, ...]
    authenticators: tuple[Authenticator, ...]
    limits: tuple[RouteLimit, ...]
    unlimited: bool
    unlimited_decided_by: str
    cors: CORSPolicy | None
    cors_decided_by: str
    headers: SecurityHeaders | None
    headers_decided_by: str
    demanding: bool
    marks: frozenset[Mark]
    view_class: type | None
    class_marks: frozenset[Mark]
    cacheable: bool
    vary: tuple[str, ...]

    def considers(self, mark: Mark, instance: object) -> bool:
        """Tell whether compiling this policy has already considered a class's mark."""
        return type(instance) is self.view_class and mark in self.class_marks

    @property
    def undecided(self) -> bool:
        """Whether only the default in the settings decided on access."""
        return self.decided_by == SETTINGS

    @cached_property
    def vary_fields(self) -> tuple[tuple[str, str], ...]:
        """The `Vary` field of an ordinary response; empty if the response does not vary."""
        return (("Vary", ", ".join(self.vary)),) if self.vary else ()

    @cached_property
    def plain_fields(self) -> tuple[tuple[str, str], ...]:
        """The security headers and `Vary` of an ordinary response over plain HTTP."""
        return (*(self.headers.plain if self.headers is not None else ()), *self.vary_fields)

    @cached_property
    def secure_fields(self) -> tuple[tuple[str, str], ...]:
        """The security headers and `Vary` of an ordinary response over HTTPS."""
        return (*(self.headers.secure if self.headers is not None else ()), *self.vary_fields)

    @cached_property
    def refusal_vary_fields(self) -> tuple[tuple[str, str], ...]:
        """The `Vary` field of an error response, whose format depends on `Accept`."""
        return (("Vary", ", ".join((*self.vary, *ERROR_VARY))),)

    @cached_property
    def contested(self) -> frozenset[str]:
        """The names, in lower case, of the guard's fields that the app may set as well."""
        return _CONTESTED.union(self.headers.names if self.headers is not None else ())
