"""The decorators that mark views."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection
from typing import Any, overload

from flask import Response

from .identity import names
from .marking import Marking, View
from .marks import (
    CacheableMark,
    CORSMark,
    HeadersMark,
    LimitKey,
    LimitMark,
    Opening,
    Requirement,
    SignedURLMark,
    UnlimitedMark,
)
from .ratelimit import RateLimit, parse_limits
from .settings import settings_of


@overload
def require_auth(view: View, /) -> View: ...


@overload
def require_auth(
    *,
    scopes: str | Collection[str] = (),
    any_scope: str | Collection[str] = (),
    roles: str | Collection[str] = (),
    schemes: str | Collection[str] | None = None,
    optional: bool = False,
    fresh: bool = False,
) -> Marking: ...


def require_auth(
    view: View | None = None,
    /,
    *,
    scopes: str | Collection[str] = (),
    any_scope: str | Collection[str] = (),
    roles: str | Collection[str] = (),
    schemes: str | Collection[str] | None = None,
    optional: bool = False,
    fresh: bool = False,
) -> View | Marking:
    """Let only callers who prove who they are use a view.

    It protects above and below the route decorator alike. Several on one view all hold.

    Args:
        view: the view, where it stands without parentheses.
        scopes: scopes of which the credential needs all, as names or as one string with
            spaces between (RFC 6749 §3.3).
        any_scope: scopes of which it needs one.
        roles: roles of which the subject needs one.
        schemes: which schemes are accepted; left out, every one that is switched on.
        optional: let a request without credentials through, with no identity; bad
            credentials are refused all the same.
        fresh: accept only tokens that were issued at a login (`fresh=True`).

    Raises:
        ValueError: a scope's or role's name cannot be sent in a header field.
    """
    marking = Marking(
        Requirement(
            scopes=names("scopes", scopes),
            any_scope=names("any_scope", any_scope),
            roles=names("roles", roles),
            schemes=None if schemes is None else names("schemes", schemes),
            optional=optional,
            fresh=fresh,
        )
    )
    return marking if view is None else marking.put_on(view, sys._getframe(1))


@overload
def require_signed_url(view: View, /) -> View: ...


@overload
def require_signed_url(*, purpose: str = "") -> Marking: ...


def require_signed_url(view: View | None = None, /, *, purpose: str = "") -> View | Marking:
    """Let only requests use a view whose URL `m9m.sign_url` has signed.

    A signed URL says nothing about who is calling: with `@require_auth` on the same view both
    hold, and alone it asks nobody to be authenticated, whatever the default is.

    Args:
        view: the view, where it stands without parentheses.
        purpose: the one for which the URL has to be signed.
    """
    marking = Marking(SignedURLMark(purpose))
    return marking if view is None else marking.put_on(view, sys._getframe(1))


public = Marking(Opening())
"""Open one view where the default, its blueprint or its class is closed."""

cacheable = Marking(CacheableMark())
"""Let shared caches keep what an authenticated view answers: it is the same for every caller."""

unlimited = Marking(UnlimitedMark())
"""Take one view out of the general rate limit, `performance.rate_limit`; its own limits hold."""


def rate_limit(
    limits: str | Callable[[], str],
    *,
    burst: int | None = None,
    key: LimitKey | None = None,
    cost: int | Callable[[], int] = 1,
    name: str | None = None,
    methods: Collection[str] | None = None,
    exempt_when: Callable[[], bool] | None = None,
    count: Callable[[Response], bool] | None = None,
    shadow: bool = False,
) -> Marking:
    """Limit how often a view may be used. Several on one view all count.

    Args:
        limits: `100/hour`, `10 per 5 minutes`, several with `;` between, or a callable that
            returns such a text for the request.
        burst: tokens in a full bucket; left out, the limit's count, so that the first period
            may admit twice the count less one. A login wants `burst=1`.
        key: whose budget it is: `address`, `identity` (the address where there is none), or a
            callable that returns a text, or `None` for the address; left out,
            `performance.rate_limit.key`.
        cost: tokens that a request takes, 1 to the burst, or a callable that returns it.
        name: routes whose limits have one name share its buckets; left out, the route's own.
        methods: methods that count; left out, all.
        exempt_when: a callable; requests for which it returns true do not count.
        count: a callable that is given the answer; where it returns false, the request does not
            count. Its tokens are taken before the view all the same, and given back then, unless
            that took so long that one has come by itself.
        shadow: count and log what would be refused, and refuse nothing.

    Raises:
        ValueError: an argument is none of these, or out of range.
    """
    _check_limits(limits, burst, name, cost)
    if key not in (None, "address", "identity") and not callable(key):
        raise ValueError(f"key={key!r}: 'address', 'identity' or a callable")
    for argument, given in (("exempt_when", exempt_when), ("count", count)):
        if given is not None and not callable(given):
            raise ValueError(f"{argument}={given!r}: a callable")
    if any(map(inspect.iscoroutinefunction, (limits, key, cost, exempt_when, count))):
        raise ValueError("a rate limit's callables are plain functions: nothing awaits a coroutine")
    if not isinstance(shadow, bool):
        raise ValueError(f"shadow={shadow!r}: True or False")
    return Marking(
        LimitMark(
            limits=limits,
            burst=burst,
            key=key,
            cost=cost,
            name=name,
            methods=None if methods is None else _methods(methods),
            exempt_when=exempt_when,
            count=count,
            shadow=shadow,
        )
    )


def _check_limits(
    limits: object, burst: int | None, name: str | None, cost: int | Callable[[], int]
) -> None:
    RateLimit(1, 1, 1 if burst is None else burst, "default" if name is None else name)
    if isinstance(limits, str):
        most = min(one.burst for one in parse_limits(limits, burst=burst))
    elif callable(limits):
        most = sys.maxsize if burst is None else burst
    else:
        raise ValueError(f"limits={limits!r}: a text such as '100/hour', or a callable")
    if not callable(cost) and (type(cost) is not int or not 1 <= cost <= most):
        raise ValueError(f"cost={cost!r} is not within 1 and the limit's burst of {most}")


def _methods(methods: Collection[str]) -> frozenset[str]:
    """Return methods as limits compare them: `HEAD` counts as `GET`."""
    if isinstance(methods, str):
        raise ValueError(f"methods={methods!r}: a list of them")
    return frozenset("GET" if one.upper() == "HEAD" else one.upper() for one in methods)


def cors(**overrides: Any) -> Marking:
    """Give one view other CORS settings than the app's.

    Args:
        overrides: keys of `security.cors` (`allowed_origins`, `allow_credentials`, …).

    Raises:
        SettingsError: a key or a value is wrong.
    """
    settings_of({"security": {"cors": overrides}}, "@cors")
    return Marking(CORSMark(overrides))


def security_headers(**overrides: Any) -> Marking:
    """Give one view other security headers than the app's.

    Args:
        overrides: keys of `security.headers` (`preset`, `content_security_policy`, …); `None`
            switches a header off.

    Raises:
        SettingsError: a key or a value is wrong.
    """
    settings_of({"security": {"headers": overrides}}, "@security_headers")
    return Marking(HeadersMark(overrides))
