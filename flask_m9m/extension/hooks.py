"""Hooks: the Flask request hooks and error handler that run the guard for every request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, after_this_request, has_request_context
from flask.ctx import RequestContext
from flask.sessions import NullSession
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.routing import RequestRedirect

from ..errors import Answered, M9MError
from ..guard.exchange import ON_REQUEST, Exchange
from ..http.csrf import DISPATCHED_METHOD
from ..http.excess import check_redirect
from ..http.other_errors import other_error
from ..processes.forking import fork_safe_lock
from .app_state import current_request
from .context import settle_later
from .dispatch import guard_dispatch, may_mount_apps

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Request

    from ..guard.pipeline import Guard
    from ..guard.policy import RoutePolicy
    from .app_state import AppState
    from .routes import Routes


class Hooks:
    """One app's hooks, which run before those of every other extension.

    Args:
        app: the app.
        state: the app's state, which makes the guard and the routes.

    Attributes:
        admit: admits requests for mounted apps, as in `GuardedApp`; `None` where there are none.
    """

    _mounted: RoutePolicy

    def __init__(self, app: Flask, state: AppState) -> None:
        self._app = app
        self._state = state
        self._lock = fork_safe_lock()
        app.register_error_handler(M9MError, self._answer)
        if state.loaded.settings.security.errors.all:
            app.register_error_handler(HTTPException, self._answer_other)
        guard_dispatch(app, self)
        self.admit = self._admit_mounted if may_mount_apps(app) else None
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
        if self.admit is not None:
            self._mounted = self._routes.mounted()
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
        # The request was admitted for a mounted app, but middleware has led it to a route.
        exchange.admitted = exchange.policy is not None
        exchange.rule = current.url_rule
        policy = self._routes.policy(current.url_rule, current.method)
        started = perf_counter_ns() if self._guard.timed else 0
        try:
            if exchange.admitted:
                exchange.policy = policy
                self._guard.check_dispatched(exchange, current.environ, current.method)
                self._guard.answer_preflight(exchange, current.environ, self._find_policy)
            else:
                self._guard.receive(exchange, current.environ, policy, self._find_policy)
            if isinstance(current.routing_exception, RequestRedirect):
                check_redirect(current.environ)
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

    def authorize_dispatched(self, current: Request) -> None:
        """Authorize a request whose rule or method is not the one that the hooks saw.

        A hook of the app has changed it, or `app.dispatch_request` was called past the hooks.
        """
        rule = current.url_rule
        if rule is None or current.routing_exception is not None:
            return
        exchange = self._state.exchange(current)
        method = current.method.upper()  # `MethodView` calls a method in any case
        exchange.rule, policy = rule, self._routes.policy(rule, method)
        try:
            if method != exchange.method:
                exchange.change_method(method)
                self._guard.check_dispatched(exchange, current.environ, method)
            if policy is exchange.policy:
                return
            self._guard.authorize_again(exchange, current.environ, policy)
        except M9MError:
            exchange.ended = True
            raise
        finally:
            if exchange.provisional:
                settle_later(exchange, self._guard)

    def receive_failed(self) -> Response | None:
        """Run steps 1 to 4 for a request that failed before the hooks; return a refusal."""
        if not has_request_context():
            return None
        current = current_request()
        exchange = self._state.exchange(current)
        if exchange.policy is not None:
            return None
        if not exchange.wrapped:
            after_this_request(self._finish)
        policy, _ = self._routes.unrouted()
        try:
            self._guard.receive(exchange, current.environ, policy, self._routes.unrouted)
        except M9MError as error:
            return self._app.finalize_request(self._answer(error), from_error_handler=True)
        return None

    def _admit_mounted(self, exchange: Exchange, environ: WSGIEnvironment, answered: bool) -> Any:
        """Run steps 1 to 5 for a WSGI app that is mounted inside; return a refusal.

        Args:
            exchange: the request's exchange.
            environ: the request.
            answered: whether the mounted app has answered, at a path that a route has too.
        """
        request = self._app.request_class(environ)
        if not answered and self._routes.has_path(request):
            return None
        setattr(request, ON_REQUEST, exchange)
        policy = self._mounted
        try:
            self._guard.receive(exchange, environ, policy, self._find_mounted)
            if policy.authenticators:
                with RequestContext(self._app, environ, request, session=NullSession()):
                    self._guard.authorize(exchange, environ, policy)
            else:
                self._guard.authorize(exchange, environ, policy)
        except M9MError as error:
            exchange.ended = True
            return self._answer_of(exchange, error)
        return None

    def _find_mounted(self, method: str) -> tuple[RoutePolicy, Collection[str] | None]:
        """Find the policy of a preflight for a mounted app.

        The app answers it itself, unless it needs a credential, which a preflight never has.
        """
        policy, methods = self._routes.unrouted(method)
        return policy if self._mounted.authenticators else replace(policy, cors=None), methods

    def _find_policy(self, method: str) -> tuple[RoutePolicy, Collection[str] | None]:
        return self._routes.find(current_request(), method)

    def _authorize(self) -> None:
        """Run the guard's steps 5 to 7: authentication, rate limits and authorization."""
        current = current_request()
        exchange: Exchange = getattr(current, ON_REQUEST)  # _receive ran before
        assert exchange.policy is not None  # noqa: S101
        guard = self._guard
        authorize = guard.authorize_again if exchange.admitted else guard.authorize
        started = perf_counter_ns() if guard.timed else 0
        try:
            authorize(exchange, current.environ, exchange.policy)
        except M9MError:
            exchange.ended = True
            raise
        finally:
            if started:
                exchange.guard_nanoseconds += perf_counter_ns() - started
            if exchange.provisional:
                settle_later(exchange, guard)

    def _answer(self, error: M9MError) -> Any:
        """Answer with an error's response; the app's own handlers for the status come first."""
        error.__traceback__ = None  # its frames refer to the exchange, and the exchange to it
        if isinstance(error, Answered):
            return error.response
        exchange = self._state.exchange(current_request())
        exchange.ended = True
        return self._answer_of(exchange, error)

    def answer_handler(self, handle: Callable[..., Any], args: Sequence[Any]) -> Any:
        """Answer a refusal that an error handler has raised, by calling a guarded view."""
        try:
            return handle(*args)
        except M9MError as error:
            return self._answer(error)

    def _answer_other(self, error: HTTPException) -> Any:
        """Answer any HTTP error of the app in our format."""
        if isinstance(error, M9MError):
            return self._answer(error)
        other = other_error(error)
        if other is None:
            return error
        response = self._guard.render(self._state.exchange(current_request()), other)
        response.headers.extend(other.headers)
        return response

    def answer_last(self, error: M9MError) -> Response:
        """Answer with an error's response, without the functions that run after a request."""
        response = self._app.make_response(self._answer(error))
        wrapped = self._state.exchange(current_request()).wrapped
        return response if wrapped else self._finish(response)

    def _answer_of(self, exchange: Exchange, error: M9MError) -> Any:
        if isinstance(error, Answered):
            return error.response
        if exchange.refusal is not error or exchange.answer is None:
            self._guard.render(exchange, error)
        return exchange.answer

    def _finish(self, response: Response) -> Response:
        exchange = self._state.exchange(current_request())
        self._guard.limits.settle(exchange, response)
        fields = response.headers.to_wsgi_list()
        response.headers = Headers(self._guard.finish(exchange, response.status, fields))
        return response
