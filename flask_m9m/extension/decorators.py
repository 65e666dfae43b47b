"""Decorators for views: `@require_auth`, `@public`, `@rate_limit`, `@cors` and others."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Collection
from types import FrameType, FunctionType
from typing import Any, TypeVar, cast, overload

from flask import Response

from ..guard.exchange import ON_REQUEST, Exchange
from ..guard.marks import (
    CacheableMark,
    CORSMark,
    Demand,
    HeadersMark,
    LimitKey,
    LimitMark,
    Mark,
    Opening,
    Requirement,
    SignedURLMark,
    UnlimitedMark,
)
from ..settings.arguments import check_text, check_type
from .app_state import current_request, current_state
from .context import settle_later
from .marked_views import add_mark, check_view, layers_of

View = TypeVar("View", bound=Callable[..., Any])

NO_VIEW: Any = object()  # the decorator is written with parentheses; `None` is an error


class ViewDecorator:
    """A decorator that puts one mark on functions, coroutine functions and view classes."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def __call__(self, view: View) -> View:
        return self.put_on(view, sys._getframe(1))

    @property
    def __name__(self) -> str:
        # Flask asks a view for its name: `@rate_limit` without a limit comes out here.
        raise TypeError(
            f"a view is needed, found a decorator ({type(self.mark).__name__}): write it with "
            'its arguments, as in @rate_limit("100/hour")'
        )

    def put_on(self, view: View, caller: FrameType) -> View:
        """Mark a view.

        Args:
            view: the function or class.
            caller: the stack frame in which the decorator is applied.

        Returns:
            The class itself, or a wrapper of the function. The wrapper enforces the mark if a
            request reaches the function without passing its route's policy.

        Raises:
            TypeError: Flask would not call it as a view, so that the mark would not apply.
            ValueError: the view has both `@public` and a mark that closes it.
        """
        check_view(view)
        if isinstance(view, type):
            add_mark(view, self.mark)
            if self.mark.closes:
                _guard_class(view, self.mark)
            return view
        *_, innermost = layers_of(view)
        if self.mark.closes or _is_written_on_def(innermost, caller):
            add_mark(innermost, self.mark)
        wrapper = _guard(view, self.mark)
        add_mark(wrapper, self.mark)
        return cast(View, wrapper)


def _guard_class(marked: type, mark: Mark) -> None:
    """Guard the `dispatch_request` of a class and of its subclasses, present and future."""
    own = vars(marked).get("__init_subclass__")

    def __init_subclass__(cls: type, /, **options: Any) -> None:
        if own is None:
            super(marked, cls).__init_subclass__(**options)  # type: ignore[arg-type]
        else:
            own.__get__(None, cls)(**options)
        _guard_dispatch(cls, marked, mark)

    marked.__init_subclass__ = classmethod(__init_subclass__)  # type: ignore[assignment]
    derived = [marked]
    while derived:
        view_class = derived.pop()
        _guard_dispatch(view_class, marked, mark)
        derived += type.__subclasses__(view_class)


def _guard_dispatch(view_class: Any, marked: type, mark: Mark) -> None:
    """Guard one class's `dispatch_request`, unless the class inherits a guarded one."""
    dispatch = vars(view_class).get("dispatch_request")
    if dispatch is None:
        bases = view_class.__mro__[1:]
        source = next((base for base in bases if "dispatch_request" in vars(base)), marked)
        if issubclass(source, marked):
            return
        dispatch = _inherited_dispatch(view_class)
    view_class.dispatch_request = _guard(dispatch, mark, on_class=True)


def _inherited_dispatch(view_class: type) -> Callable[..., Any]:
    """Make a `dispatch_request` that calls the one of the next class in the MRO."""

    def dispatch_request(self: Any, *args: Any, **kwargs: Any) -> Any:
        inherited: Any = super(view_class, self)
        return inherited.dispatch_request(*args, **kwargs)

    async def dispatch_coroutine(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await dispatch_request(self, *args, **kwargs)

    is_coroutine = inspect.iscoroutinefunction(getattr(view_class, "dispatch_request", None))
    return dispatch_coroutine if is_coroutine else dispatch_request


def _guard(view: Callable[..., Any], mark: Mark, on_class: bool = False) -> Callable[..., Any]:
    """Wrap a view so that it enforces a mark which the request's policy has not enforced."""
    name = getattr(view, "__qualname__", type(view).__qualname__)

    if inspect.iscoroutinefunction(view):

        @functools.wraps(view)
        async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
            current = current_request()
            exchange: Exchange | None = getattr(current, ON_REQUEST, None)
            if (
                exchange is None
                or mark not in exchange.enforced
                or current.method != exchange.method
            ):
                _enforce(mark, name, args[0] if on_class else None)
            return await view(*args, **kwargs)

        return guarded_coroutine

    @functools.wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        current = current_request()
        exchange: Exchange | None = getattr(current, ON_REQUEST, None)
        if exchange is None or mark not in exchange.enforced or current.method != exchange.method:
            _enforce(mark, name, args[0] if on_class else None)
        return view(*args, **kwargs)

    return guarded


def _enforce(mark: Mark, view: str, instance: object) -> None:
    """Enforce a mark, unless the request's policy has already considered it for its class."""
    state, request = current_state(view), current_request()
    exchange = state.exchange(request)
    policy = exchange.policy
    # The app may have rewritten the method since the policy was chosen.
    method = request.method.upper()
    same_method = method == exchange.method.upper()
    if not same_method:
        state.guard.check_dispatched(exchange, request.environ, method)
    if same_method and policy is not None and policy.considers(mark, instance):
        return
    if isinstance(mark, Demand | LimitMark):
        try:
            state.guard.enforce(exchange, request.environ, mark, view)
        finally:
            if exchange.provisional:
                settle_later(exchange, state.guard)


def _is_written_on_def(innermost: object, caller: FrameType) -> bool:
    """Tell whether a decorator is written on the `def` of this function.

    A decorator on a `def` runs in the frame that has just made the function, at a line between the
    first decorator and the body. A call such as `public(report)` comes from another frame or from
    a later line.
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
    instead: bool = False,
) -> ViewDecorator: ...


def require_auth(
    view: View = NO_VIEW,
    /,
    *,
    scopes: str | Collection[str] = (),
    any_scope: str | Collection[str] = (),
    roles: str | Collection[str] = (),
    schemes: str | Collection[str] | None = None,
    optional: bool = False,
    fresh: bool = False,
    instead: bool = False,
) -> View | ViewDecorator:
    """Require a valid credential for a view, and optionally scopes or roles.

    It works above and below the route decorator. All that stand on a view, its class, blueprints
    and patterns apply, up to one with `optional` or `instead`, or `@public`. A request without a
    valid credential gets a 401, one without the scopes or roles a 403.

    Example:
        `@require_auth` or `@require_auth(scopes="reports:read", roles=["analyst", "admin"])`

    Args:
        view: the view, where the decorator is written without parentheses.
        scopes: the credential must have all of these scopes: a collection of names, or one string
            with spaces between the names (RFC 6749 §3.3).
        any_scope: the credential must have at least one of these scopes.
        roles: the subject must have at least one of these roles.
        schemes: the accepted schemes: `bearer`, `api_key`, `basic`, `cookie` or the app's own; by
            default every enabled scheme.
        optional: let requests without a credential through, without an identity. A bad credential
            still gets a 401.
        fresh: accept only tokens that were issued at a login, with `fresh=True`.
        instead: replace what stands further from the view, such as its blueprint's requirements.

    Raises:
        ValueError: the name of a scope, role or scheme is not a scope-token (RFC 6749 §3.3).
    """
    requirement = Requirement.of(
        scopes=scopes,
        any_scope=any_scope,
        roles=roles,
        schemes=schemes,
        optional=optional,
        fresh=fresh,
        instead=instead,
    )
    decorator = ViewDecorator(requirement)
    return decorator if view is NO_VIEW else decorator.put_on(view, sys._getframe(1))


@overload
def require_signed_url(view: View, /) -> View: ...


@overload
def require_signed_url(*, purpose: str = "", instead: bool = False) -> ViewDecorator: ...


def require_signed_url(
    view: View = NO_VIEW,
    /,
    *,
    purpose: str = "",
    instead: bool = False,
) -> View | ViewDecorator:
    """Require a URL that `m9m.sign_url` has signed, and that has not expired.

    A signed URL does not authenticate the caller. With `@require_auth` on the view, its class or
    its blueprint both apply; without it no credential is needed, even if `default_access` is
    `authenticated`. Other requests get a 403.

    Args:
        view: the view, where the decorator is written without parentheses.
        purpose: the purpose for which the URL must be signed.
        instead: replace what stands further from the view, such as its blueprint's requirements.
    """
    check_text(purpose=purpose)
    check_type(bool, instead=instead)
    decorator = ViewDecorator(SignedURLMark(purpose, instead))
    return decorator if view is NO_VIEW else decorator.put_on(view, sys._getframe(1))


public = ViewDecorator(Opening())
"""Open a view to everybody, where the default, its blueprint or its class requires a credential."""

cacheable = ViewDecorator(CacheableMark())
"""Let shared caches keep the responses of an authenticated view: every caller gets the same."""

unlimited = ViewDecorator(UnlimitedMark())
"""Exempt a view from the general rate limit, `performance.rate_limit`; its own limits apply."""


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
) -> ViewDecorator:
    """Limit how often a client may use a view; requests beyond the limit get a 429.

    If a view has several limits, each of them applies.

    Args:
        limits: `100/hour`, `10 per 5 minutes`, several as in `5/minute; 20/hour`, or a callable
            without arguments that returns such a text for the current request.
        burst: the tokens in a full bucket; by default the limit's count. The first period can then
            admit twice the count, less one. Use `burst=1` for a login.
        key: whose requests share a bucket: `address`, `identity` (the address, if there is no
            identity), or a callable that returns a text, or `None` for the address. By default
            `performance.rate_limit.key`.
        cost: the tokens that a request takes, 1 to the burst, or a callable that returns them.
        name: a name for the limit; routes whose limits have the same name share their buckets. By
            default each route has its own.
        methods: the methods that count; by default all.
        exempt_when: a callable; requests for which it returns true do not count.
        count: a callable that gets the response; if it returns false, the request does not count.
            Its tokens are taken before the view runs, and refunded after it, unless the view took
            longer than a token takes to come back.
        shadow: count requests and log those beyond the limit, but refuse none.

    Raises:
        ValueError: an argument is of another type, or out of range.
    """
    return ViewDecorator(
        LimitMark.of(
            limits,
            burst=burst,
            key=key,
            cost=cost,
            name=name,
            methods=methods,
            exempt_when=exempt_when,
            count=count,
            shadow=shadow,
        )
    )


def cors(**overrides: Any) -> ViewDecorator:
    """Override the app's CORS settings for a view.

    Example:
        `@cors(allowed_origins=["https://app.example.com"], allow_credentials=True)`

    Args:
        overrides: keys of `security.cors` (`allowed_origins`, `allow_credentials`, …). Other keys
            keep the app's values.

    Raises:
        SettingsError: a key is unknown or a value is not accepted.
    """
    return ViewDecorator(CORSMark.of(**overrides))


def security_headers(**overrides: Any) -> ViewDecorator:
    """Override the app's security headers for a view.

    Example:
        `@security_headers(preset="web", x_frame_options=None)`

    Args:
        overrides: keys of `security.headers` (`preset`, `content_security_policy`, …); `None`
            switches a header off. Other keys keep the app's values.

    Raises:
        SettingsError: a key is unknown or a value is not accepted.
    """
    return ViewDecorator(HeadersMark.of(**overrides))
