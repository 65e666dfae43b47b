"""RoutePolicy: what one endpoint demands of a request, and adds to its answer."""

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
"""The place of what no mark decides."""

FLASK = "Flask"
"""The place of what Flask decides: its static files are public, and so is its own `OPTIONS`."""

_CONTESTED = RESPONSE_FIELDS.union(
    ("vary", "cache-control", "expires", "www-authenticate", "retry-after"),
    ("ratelimit", "ratelimit-policy", "x-request-id"),
    ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
)


class Access(StrEnum):
    """Who gets through to a route."""

    PUBLIC = "public"
    OPTIONAL = "optional"
    AUTHENTICATED = "authenticated"
    SIGNED = "signed"


@dataclass(frozen=True, slots=True)
class Level:
    """The marks found in one place, the nearest to the view first in a list of levels.

    Attributes:
        place: where they are: `view`, `blueprint api`, `pattern api-docs.*`.
        marks: in the order in which they were written, the innermost first.
        binding: whether what they close stays closed although a nearer level opens it.
        view_class: the view class on which, or on a base of which, they stand.
    """

    place: str
    marks: Sequence[Mark]
    binding: bool = False
    view_class: type | None = None


@dataclass(frozen=True, eq=False, slots=True)
class RouteLimit:
    """One `@rate_limit` as it holds for one route.

    Attributes:
        mark: the decorator's.
        name: what its limits are called.
        scope: whose they are.
        place: where the decorator is, as in `Level`.
        fixed: its limits, unless a callable returns them.
        plain: its one limit, where a request always takes the same of it, whatever its answer is.
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
            ValueError: the app's callable returned what is no limit.
        """
        if self.fixed is not None:
            return self.fixed
        notation = self.mark.limits
        assert callable(notation)  # noqa: S101  # the compiler parses every string
        return parse_limits(notation(), burst=self.mark.burst, name=self.name, scope=self.scope)


@dataclass(frozen=True, eq=False)
class RoutePolicy:
    """What one endpoint demands of a request by one method, and adds to its answer.

    Attributes:
        route: its name: the endpoint's, mostly.
        access: who gets through.
        decided_by: what decided that: the places of levels, or `settings`.
        demands: what a request must meet beyond a valid credential.
        authenticators: the schemes that are accepted here.
        limits: rate limits of the route, besides the general one.
        unlimited: whether the general one does not count it.
        unlimited_decided_by: what decided that.
        cors: `None` where CORS is switched off.
        cors_decided_by: what decided that.
        headers: `None` where security headers are switched off.
        headers_decided_by: what decided that.
        demanding: whether there are demands or limits to enforce.
        marks: what this policy enforces.
        view_class: the class of which the view is made, if it is made of one.
        class_marks: the marks of that class and its bases, the overridden ones too.
        cacheable: whether shared caches may keep authenticated answers.
        vary: request fields on which the answer depends.
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
        """Whether nobody but the settings' default said who gets through."""
        return self.decided_by == SETTINGS

    @cached_property
    def vary_fields(self) -> tuple[tuple[str, str], ...]:
        """The `Vary` of an answer that sets none itself, if it varies at all."""
        return (("Vary", ", ".join(self.vary)),) if self.vary else ()

    @cached_property
    def plain_fields(self) -> tuple[tuple[str, str], ...]:
        """What every answer over plain HTTP carries that is nothing unusual."""
        return (*(self.headers.plain if self.headers is not None else ()), *self.vary_fields)

    @cached_property
    def secure_fields(self) -> tuple[tuple[str, str], ...]:
        """The same over HTTPS."""
        return (*(self.headers.secure if self.headers is not None else ()), *self.vary_fields)

    @cached_property
    def refusal_vary_fields(self) -> tuple[tuple[str, str], ...]:
        """The `Vary` of an error, whose format the client may choose."""
        return (("Vary", ", ".join((*self.vary, *ERROR_VARY))),)

    @cached_property
    def contested(self) -> frozenset[str]:
        """The fields, in lower case, that an answer of its own accord may have as well."""
        return _CONTESTED.union(self.headers.names if self.headers is not None else ())
