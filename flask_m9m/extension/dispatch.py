"""Dispatch: guards the steps of Flask that hooks do not see.

A request may be dispatched by another rule than the one that the hooks saw, a request may fail
before the hooks run, and an error handler may call a guarded view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flask import Flask, appcontext_tearing_down, has_request_context
from werkzeug.middleware.proxy_fix import ProxyFix

from ..errors import M9MError
from ..guard.exchange import ON_REQUEST, Exchange
from .app_state import current_request, keep_exchange

if TYPE_CHECKING:
    from flask import Request, Response

    class Hooks(Protocol):
        """The part of `hooks.Hooks` that is used here."""

        def authorize_dispatched(self, current: Request) -> None: ...

        def answer_last(self, error: M9MError) -> Response: ...

        def answer_handler(self, handle: Callable[..., Any], args: Sequence[Any]) -> Any: ...

        def receive_failed(self) -> Response | None: ...


def guard_dispatch(app: Flask, hooks: Hooks) -> None:
    """Guard the methods by which an app dispatches a request and answers errors.

    Args:
        app: the app.
        hooks: its hooks.
    """
    _guard_rules(app, hooks)
    _guard_errors(app, hooks)
    do_teardown_request = app.do_teardown_request

    def tear_down(*args: Any) -> None:
        # A function that it calls may raise, so the exchange is kept first.
        if app.teardown_appcontext_funcs or appcontext_tearing_down.receivers:
            keep_exchange()
        do_teardown_request(*args)

    _replace(app, do_teardown_request=tear_down)


def _guard_rules(app: Flask, hooks: Hooks) -> None:
    """Compare the rule that is dispatched with the one that the hooks saw."""
    dispatch_request, ensure_sync = app.dispatch_request, app.ensure_sync

    def authorize() -> None:
        current = current_request()
        exchange: Exchange | None = getattr(current, ON_REQUEST, None)
        if (
            exchange is None
            or exchange.rule is not current.url_rule
            or exchange.method != current.method
        ):
            hooks.authorize_dispatched(current)

    def dispatch(*args: Any) -> Any:
        authorize()
        return dispatch_request(*args)

    def ensure(function: Callable[..., Any]) -> Callable[..., Any]:
        rule = current_request().url_rule if has_request_context() else None
        if rule is not None and app.view_functions.get(rule.endpoint) is function:
            authorize()
        return ensure_sync(function)

    _replace(app, dispatch_request=dispatch)
    if type(app).dispatch_request is not Flask.dispatch_request:
        # The app's own method may change the rule before it calls Flask's, which calls this.
        _replace(app, ensure_sync=ensure)


def _guard_errors(app: Flask, hooks: Hooks) -> None:
    """Answer refusals that a guarded view raises where Flask does not expect one."""
    handle_user_exception, handle_exception = app.handle_user_exception, app.handle_exception

    def handle_error(*args: Any) -> Any:
        try:
            return handle_user_exception(*args)
        except M9MError as error:
            if error is args[-1]:
                raise
            return hooks.answer_handler(handle_user_exception, (*args[:-1], error))

    def handle_failure(*args: Any) -> Any:
        error = args[-1]
        if isinstance(error, M9MError) and has_request_context():
            # A function of `after_request` has called a guarded view.
            return hooks.answer_last(error)
        answer = hooks.receive_failed()
        return handle_exception(*args) if answer is None else answer

    _replace(app, handle_user_exception=handle_error, handle_exception=handle_failure)


def _replace(app: Flask, **functions: Callable[..., Any]) -> None:
    for name, function in functions.items():
        setattr(app, name, function)


def may_mount_apps(app: Flask) -> bool:
    """Tell whether middleware in `app.wsgi_app` may answer requests in place of Flask."""
    inner: Any = app.wsgi_app
    while isinstance(inner, ProxyFix):
        inner = inner.app
    return getattr(inner, "__self__", None) is not app
