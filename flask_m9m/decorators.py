"""The decorators that mark views.

A mark is kept in a weak table by function, not in the function's `__dict__`, which
`functools.wraps` copies. What closes a route is kept with the innermost function, so that it
holds whichever order the decorators were written in. What opens one is kept with the wrapper
that the decorator returned, and with the function itself only where the decorator stands on
its `def`: `add_url_rule("/open", view_func=public(report))` leaves other routes of `report`
as they are.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection, Iterator
from types import FrameType, FunctionType, MethodType
from typing import Any, TypeVar, cast, overload
from weakref import WeakKeyDictionary

from flask import Response

from .context import current_exchange, current_request, settle_later
from .exchange import ON_REQUEST, Exchange
from .identity import names
from .marks import (
    AccessMark,
    CacheableMark,
    CORSMark,
    HeadersMark,
    LimitKey,
    LimitMark,
    Mark,
    Opening,
    Requirement,
    SignedURLMark,
    UnlimitedMark,
)
from .ratelimit import RateLimit, parse_limits
from .settings import settings_of

View = TypeVar("View", bound=Callable[..., Any])

_marks: WeakKeyDictionary[Any, tuple[Mark, ...]] = WeakKeyDictionary()


def marks_of(target: object) -> tuple[Mark, ...]:
    """Return the marks kept with exactly this function or class, the innermost first."""
    try:
        return _marks.get(target, ())
    except TypeError:  # a callable that cannot be referred to weakly was never marked
        return ()


def layers_of(view: object) -> Iterator[Any]:
    """Yield a view and what it wraps, down to the innermost function."""
    seen: set[int] = set()
    while view is not None and id(view) not in seen:
        if isinstance(view, MethodType):
            view = view.__func__
        seen.add(id(view))
        yield view
        view = view.func if isinstance(view, functools.partial) else _wrapped(view)


class Marking:
    """A decorator that puts one mark on functions, coroutine functions and view classes."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def __call__(self, view: View) -> View:
        return self.put_on(view, sys._getframe(1))

    @property
    def __name__(self) -> str:
        # Flask asks a view for its name: this is where `@rate_limit` without a limit comes out.
        raise TypeError(
            f"{type(self.mark).__name__} is put on a view and is none itself: call the decorator, "
            'as in @rate_limit("100/hour")'
        )

    def put_on(self, view: View, caller: FrameType) -> View:
        """Mark a view.

        Args:
            view: the function or class.
            caller: the frame that decorates it.

        Returns:
            A class as it is; for a function a wrapper that enforces the mark where a request
            reaches it past its route's policy.
        """
        if isinstance(view, type):
            _add(view, self.mark)
            if self.mark.closes and hasattr(view, "dispatch_request"):
                dispatch = vars(view).get("dispatch_request") or _inherited(view)
                guarded = _guard(dispatch, self.mark, on_class=True)
                view.dispatch_request = guarded
            return view
        if not callable(view):
            raise TypeError(f"a view or a view class is marked, not {type(view).__name__}")
        *_, innermost = layers_of(view)
        if self.mark.closes or _stands_on_def(innermost, caller):
            _add(innermost, self.mark)
        wrapper = _guard(view, self.mark)
        _add(wrapper, self.mark)
        return cast(View, wrapper)


def _inherited(view_class: type) -> Callable[..., Any]:
    """A `dispatch_request` that calls the next class's."""

    def dispatch_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        inherited: Any = super(view_class, self)
        return inherited.dispatch_request(*args, **kwargs)

    async def dispatch_coroutine(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await dispatch_request(self, *args, **kwargs)

    is_coroutine = inspect.iscoroutinefunction(getattr(view_class, "dispatch_request", None))
    return dispatch_coroutine if is_coroutine else dispatch_request


def _wrapped(view: object) -> object:
    return getattr(view, "__wrapped__", None)


def _add(target: Any, mark: Mark) -> None:
    held = _marks.get(target, ())
    marks = held if mark in held else (*held, mark)
    closing = next((one for one in marks if isinstance(one, AccessMark)), None)
    if closing is not None and any(isinstance(one, Opening) for one in marks):
        decorators = f"both @public and {closing.decorator}"
        raise ValueError(f"{target.__qualname__} is marked with {decorators}")
    _marks[target] = marks


def _guard(view: Callable[..., Any], mark: Mark, on_class: bool = False) -> Callable[..., Any]:
    name = getattr(view, "__qualname__", type(view).__qualname__)

    if inspect.iscoroutinefunction(view):

        @functools.wraps(view)
        async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
            exchange: Exchange | None = getattr(current_request(), ON_REQUEST, None)
            if exchange is None or mark not in exchange.enforced:
                _enforce(mark, name, args[0] if on_class else None)
            return await view(*args, **kwargs)

        return guarded_coroutine

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        exchange: Exchange | None = getattr(current_request(), ON_REQUEST, None)
        if exchange is None or mark not in exchange.enforced:
            _enforce(mark, name, args[0] if on_class else None)
        return view(*args, **kwargs)

    return guarded


def _enforce(mark: Mark, view: str, instance: object) -> None:
    exchange = current_exchange(view)
    policy = exchange.policy
    if policy is not None and policy.weighed(mark, instance):
        return
    if isinstance(mark, AccessMark | LimitMark):
        try:
            exchange.owner.enforce(exchange, current_request().environ, mark, view)
        finally:
            settle_later(exchange)


def _stands_on_def(innermost: object, caller: FrameType) -> bool:
    """Tell whether a decorator stands on the `def` of this function.

    While `@public` on a `def` runs, the frame that runs it is the one that has just made the
    function, at a line between the first decorator and the body. A call such as
    `public(report)` comes from another frame or a later line.
    """
    if not isinstance(innermost, FunctionType) or innermost.__name__ == "<lambda>":
        return False
    code = innermost.__code__
    first_line = code.co_firstlineno
    body = min((line for _, _, line in code.co_lines() if line and line > first_line), default=0)
    return code in caller.f_code.co_consts and first_line <= caller.f_lineno <= (body or first_line)


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
