"""Dispatch: guards the steps of Flask that hooks do not see.

A request may be dispatched by another rule than the one that the hooks saw, a request may fail
before the hooks run, and an error handler may call a guarded view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flask import Flask, appcontext_tearing_down
from werkzeug.middleware.proxy_fix import ProxyFix

from ..errors import M9MError
from ..guard.exchange import ON_REQUEST, Exchange
from .app_state import current_request, keep_exchange

if TYPE_CHECKING:
    from flask import Request, Response

    class Hooks(Protocol):
        """The part of `hooks.Hooks` that is used here."""

        def authorize_dispatched(self, current: Request) -> None: ...

        def answer_handler(self, handle: Callable[..., Any], args: Sequence[Any]) -> Any: ...

        def receive_failed(self) -> Response | None: ...


def guard_dispatch(app: Flask, hooks: Hooks) -> None:
    """Guard an app's `dispatch_request`, `handle_user_exception` and `handle_exception`.

    `do_teardown_request` keeps the exchange first: a function that it calls may raise.

    Args:
        app: the app.
        hooks: its hooks.
    """
    dispatch_request = app.dispatch_request
    handle_user_exception = app.handle_user_exception
    handle_exception = app.handle_exception
    do_teardown_request = app.do_teardown_request

    def dispatch(*args: Any) -> Any:
        current = current_request()
        exchange: Exchange | None = getattr(current, ON_REQUEST, None)
        if (
            exchange is None
            or exchange.rule is not current.url_rule
            or exchange.method != current.method
        ):
            hooks.authorize_dispatched(current)
        return dispatch_request(*args)

    def handle_error(*args: Any) -> Any:
        try:
            return handle_user_exception(*args)
        except M9MError as error:
            if error is args[-1]:
                raise
            return hooks.answer_handler(handle_user_exception, (*args[:-1], error))

    def handle_failure(*args: Any) -> Any:
        answer = hooks.receive_failed()
        return handle_exception(*args) if answer is None else answer

    def tear_down(*args: Any) -> None:
        if app.teardown_appcontext_funcs or appcontext_tearing_down.receivers:
            keep_exchange()
        do_teardown_request(*args)

    for name, function in (
        ("dispatch_request", dispatch),
        ("handle_user_exception", handle_error),
        ("handle_exception", handle_failure),
        ("do_teardown_request", tear_down),
    ):
        setattr(app, name, function)


def may_mount_apps(app: Flask) -> bool:
    """Tell whether middleware in `app.wsgi_app` may answer requests in place of Flask."""
    inner: Any = app.wsgi_app
    while isinstance(inner, ProxyFix):
        inner = inner.app
    return getattr(inner, "__self__", None) is not app
