"""Hooks: where Flask's way of a request passes the guard."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, request
from werkzeug.datastructures import Headers

from .errors import M9MError
from .exchange import Exchange

if TYPE_CHECKING:
    from .state import AppState


class Hooks:
    """One app's hooks, which stay ahead of every other extension's.

    Args:
        app: the app.
        state: the app's.
    """

    def __init__(self, app: Flask, state: AppState) -> None:
        self._app = app
        self._state = state
        self._lock = threading.Lock()
        self._checked = False
        app.register_error_handler(M9MError, self._answer)
        app.after_request_funcs.setdefault(None, []).append(self._seal)
        self._go_first()

    def ensure_first(self) -> None:
        """Before the first request: go ahead of whatever registered since."""
        if not self._checked:
            with self._lock:
                self._go_first()
                self._checked = True

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
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        exchange = self._state.exchange(current.environ)
        routes = self._state.routes
        exchange.owner.receive(
            exchange, routes.policy(current), lambda method: routes.find(current, method)
        )

    def _authorize(self) -> None:
        """Take steps 5 to 7."""
        exchange = self._exchange()
        assert exchange.policy is not None  # noqa: S101  # _receive ran before
        exchange.owner.authorize(exchange, exchange.policy)

    def _answer(self, error: M9MError) -> Any:
        """Answer a refusal; the app's own handlers for the status come before this one."""
        exchange = self._exchange()
        return error.response or exchange.owner.render(exchange, error)

    def _seal(self, response: Response) -> Response:
        """Seal an answer that will not pass `SealedApp`, because the app replaced it."""
        exchange = self._exchange()
        if not exchange.sealed_later:
            fields = response.headers.to_wsgi_list()
            response.headers = Headers(exchange.owner.seal(exchange, response.status, fields))
        return response

    def _exchange(self) -> Exchange:
        return self._state.exchange(request.environ)
