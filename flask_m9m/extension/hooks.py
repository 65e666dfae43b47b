"""Hooks: the Flask request hooks and error handler that run the guard for every request."""

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
from ..http.csrf import DISPATCHED_METHOD
from ..processes.forking import fork_safe_lock
from .app_state import current_request
from .context import settle_later

if TYPE_CHECKING:
    from ..guard.pipeline import Guard
    from ..guard.policy import RoutePolicy
    from .app_state import AppState
    from .routes import Routes


class Hooks:
    """One app's hooks, which run before those of every other extension.

    Args:
        app: the app.
        state: the app's state, which makes the guard and the routes.
    """

    def __init__(self, app: Flask, state: AppState) -> None:
        self._app = app
        self._state = state
        self._lock = fork_safe_lock()
        app.register_error_handler(M9MError, self._answer)
        self._move_to_front()

    @cached_property
    def _guard(self) -> Guard:
        return self._state.guard

    @cached_property
    def _routes(self) -> Routes:
        return self._state.routes

    def prepare(self) -> Guard:
        """Prepare for the first request: put the hooks first again, check the routes."""
        with self._lock:
            self._move_to_front()
        self._guard.prepare()
        self._routes.check()
        return self._guard

    def log_exception(self) -> None:
        """Log an exception that left the app; in debug and testing raise it again."""
        if self._app.debug or self._app.testing:
            raise  # the exception that is being handled
        self._app.logger.exception("An exception left the app")

    def _move_to_front(self) -> None:
        for registered, own in (
            (self._app.url_value_preprocessors, self._receive),
            (self._app.before_request_funcs, self._authorize),
        ):
            hooks: list[Any] = registered.setdefault(None, [])
            if not hooks or hooks[0] != own:
                hooks[:] = [own, *(hook for hook in hooks if hook != own)]

    def _receive(self, endpoint: str | None, values: dict[str, Any] | None) -> None:
        """Run the guard's steps 1 to 4, before any other hook can end the request."""
        current = current_request()
        exchange = self._state.exchange(current)
        if not exchange.wrapped:
            # The request did not come through `GuardedApp`: `app.wsgi_app` was replaced, or the
            # app was called directly.
            after_this_request(self._finish)
        if current.method != exchange.method:  # the app's request class has replaced it
            exchange.method = current.environ[DISPATCHED_METHOD] = current.method
        policy = self._routes.policy(current.url_rule, current.method)
        started = perf_counter_ns() if self._guard.timed else 0
        try:
            self._guard.receive(exchange, current.environ, policy, self._find_policy)
        except Answered:
            exchange.ended = True
            if isinstance(current.routing_exception, SecurityError):
                exchange.answer = None  # the request is for a host that the app does not serve
                raise current.routing_exception from None
            raise
        except M9MError:
            exchange.ended = True
            raise
        finally:
            if started:
                exchange.guard_nanoseconds += perf_counter_ns() - started

    def _find_policy(self, method: str) -> tuple[RoutePolicy, Collection[str] | None]:
        return self._routes.find(current_request(), method)

    def _authorize(self) -> None:
        """Run the guard's steps 5 to 7: authentication, rate limits and authorization."""
        current = current_request()
        exchange: Exchange = getattr(current, ON_REQUEST)  # _receive ran before
        assert exchange.policy is not None  # noqa: S101
        started = perf_counter_ns() if self._guard.timed else 0
        try:
            self._guard.authorize(exchange, current.environ, exchange.policy)
        except M9MError:
            exchange.ended = True
            raise
        finally:
            if started:
                exchange.guard_nanoseconds += perf_counter_ns() - started
            if exchange.provisional:
                settle_later(exchange, self._guard)

    def _answer(self, error: M9MError) -> Any:
        """Answer with an error's response; the app's own handlers for the status come first."""
        error.__traceback__ = None  # its frames refer to the exchange, and the exchange to it
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
