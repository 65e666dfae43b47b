"""Hooks: where Flask's way of a request passes the guard."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, after_this_request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import SecurityError

from ..errors import Answered, M9MError
from ..guard.exchange import ON_REQUEST, Exchange
from ..processes.forking import fork_safe_lock
from .app_state import current_request
from .context import settle_later

if TYPE_CHECKING:
    from ..guard.pipeline import Guard
    from ..guard.policy import RoutePolicy
    from .app_state import AppState
    from .routes import Routes


class Hooks:
    """One app's hooks, which stay ahead of every other extension's.

    Args:
        app: the app.
        state: the app's.
    """

    def __init__(self, app: Flask, state: AppState) -> None:
        self._app = app
        self._state = state
        self._lock = fork_safe_lock()
        app.register_error_handler(M9MError, self._answer)
        self._go_first()

    @cached_property
    def _guard(self) -> Guard:
        return self._state.guard

    @cached_property
    def _routes(self) -> Routes:
        return self._state.routes

    def prepare(self) -> Guard:
        """Before the first request: go ahead of whatever registered since; return the guard."""
        with self._lock:
            self._go_first()
        self._guard.prepare()
        self._routes.check_own()
        return self._guard

    def failed(self) -> None:
        """Log the exception that left the app; in debug and testing it goes on, as Flask's do."""
        if self._app.debug or self._app.testing:
            raise  # the one that is being handled
        self._app.logger.exception("An exception left the app")

    def _go_first(self) -> None:
        for hooks, own in (
            (self._app.url_value_preprocessors, self._receive),
            (self._app.before_request_funcs, self._authorize),
        ):
            line: list[Any] = hooks.setdefault(None, [])
            if not line or line[0] != own:
                line[:] = [own, *(hook for hook in line if hook != own)]

    def _receive(self, endpoint: str | None, values: dict[str, Any] | None) -> None:
        """Take steps 1 to 4, before any other hook can end the request."""
        current = current_request()
        exchange = self._state.exchange(current)
        if not exchange.wrapped:
            # The request did not come through `GuardedApp`: `app.wsgi_app` was replaced, or the
            # app was called directly.
            after_this_request(self._finish)
        policy = self._routes.policy(current.url_rule, current.method)
        begun = perf_counter_ns() if self._guard.timed else 0
        try:
            self._guard.receive(exchange, current.environ, policy, self._find)
        except Answered:
            exchange.ended = True
            if isinstance(current.routing_exception, SecurityError):
                exchange.answer = None  # a host that the app does not answer to
                raise current.routing_exception from None
            raise
        except M9MError:
            exchange.ended = True
            raise
        finally:
            if begun:
                exchange.guard_nanoseconds += perf_counter_ns() - begun

    def _find(self, method: str) -> tuple[RoutePolicy, Collection[str] | None]:
        return self._routes.find(current_request(), method)

    def _authorize(self) -> None:
        """Take steps 5 to 7."""
        current = current_request()
        exchange: Exchange = getattr(current, ON_REQUEST)  # _receive ran before
        assert exchange.policy is not None  # noqa: S101
        begun = perf_counter_ns() if self._guard.timed else 0
        try:
            self._guard.authorize(exchange, current.environ, exchange.policy)
        except M9MError:
            exchange.ended = True
            raise
        finally:
            if begun:
                exchange.guard_nanoseconds += perf_counter_ns() - begun
            if exchange.provisional:
                settle_later(exchange, self._guard)

    def _answer(self, error: M9MError) -> Any:
        """Answer a refusal; the app's own handlers for the status come before this one."""
        error.__traceback__ = None  # its frames hold the exchange, which holds it
        if isinstance(error, Answered):
            return error.response
        exchange = self._state.exchange(current_request())
        if exchange.refusal is not error or exchange.answer is None:
            self._guard.render(exchange, error)
        exchange.ended = True
        return exchange.answer

    def _finish(self, response: Response) -> Response:
        exchange = self._state.exchange(current_request())
        self._guard.limits.settle(exchange, response)
        fields = response.headers.to_wsgi_list()
        response.headers = Headers(self._guard.finish(exchange, response.status, fields))
        return response
