"""GuardedApp: the WSGI wrapper that completes the header fields of every response."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import ClosingIterator

from ..errors import InternalError
from ..guard.exchange import EXCHANGE, Exchange
from ..guard.pipeline import Guard
from ..http.headers import HeaderFields

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.wrappers import Response

    Admit = Callable[[Exchange, WSGIEnvironment, bool], Response | None]

_FINISHED = "m9m.finished"
"""The environ's key for the completed header fields, for the guards of outer apps."""


class GuardedApp:
    """Wraps a WSGI app and completes the header fields of every response before they are sent.

    No other code does this, so that it happens exactly once for views, error handlers, static
    files, exceptions and mounted apps. A response that the guard of a mounted app has completed
    stays unchanged.

    Args:
        wsgi_app: the app; it finds its exchange in the environ.
        prepare: returns the guard; called at the first request.
        failed: called in the `except` block for an exception that the app did not handle: logs
            the exception, or raises it again.
        admit: refuses a request that a mounted app may answer; `None` where none can. It is called
            before the app, and, where nothing has admitted the request, when the app answers.
    """

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        prepare: Callable[[], Guard],
        failed: Callable[[], None],
        admit: Admit | None = None,
    ) -> None:
        self._inner = wsgi_app
        self._wsgi_app = wsgi_app if admit is None else self._enter_mounted
        self._prepare = prepare
        self._failed = failed
        self._admit = admit
        self._guard: Guard | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        guard = self._guard or self._make_ready()
        exchange = environ[EXCHANGE] = guard.begin(environ)
        exchange.wrapped = True
        restored: list[Iterable[bytes]] = []
        started = False

        def start_finished(status: str, headers: HeaderFields, exc_info: Any = None) -> Any:
            nonlocal started
            started = True
            if exchange.policy is None and self._admit is not None:
                refusal = self._admit(exchange, environ, True)
                status, headers = _replaced(refusal, environ, status, headers, restored)
            if environ.get(_FINISHED) is not headers:  # else an inner app's guard did it
                if exchange.ended:
                    status, headers = _restore(exchange, environ, status, headers, restored)
                headers = environ[_FINISHED] = guard.finish(exchange, status, headers)
            write = start_response(status, headers, *(() if exc_info is None else (exc_info,)))
            return len if restored else write  # what the app writes itself is discarded

        try:
            body = self._wsgi_app(environ, start_finished)
            if not started:
                body = first = start_body(body)
                if not started:
                    first.close()
                    raise RuntimeError("the app did not call start_response")
        except Exception:
            self._failed()
            error = guard.render(exchange, InternalError())
            body, status, headers = error.get_wsgi_response(environ)
            start_finished(status, headers, sys.exc_info() if started else None)
        if restored:
            return ClosingIterator(restored[0], getattr(body, "close", None))
        return body

    def _make_ready(self) -> Guard:
        self._guard = self._prepare()
        return self._guard

    def _enter_mounted(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Run the app, unless a mounted app may answer and the request is refused."""
        assert self._admit is not None  # noqa: S101
        refusal = self._admit(environ[EXCHANGE], environ, False)
        return (refusal or self._inner)(environ, start_response)


def start_body(body: Iterable[bytes]) -> ClosingIterator:
    """Run a response's body up to its first part, so that an exception can still be handled."""
    close = getattr(body, "close", None)
    try:
        chunks = iter(body)
        first = next(chunks, b"")
    except BaseException:
        if close is not None:
            close()
        raise
    return ClosingIterator(chain((first,), chunks), close)


def _restore(
    exchange: Exchange,
    environ: WSGIEnvironment,
    status: str,
    headers: HeaderFields,
    restored: list[Iterable[bytes]],
) -> tuple[str, HeaderFields]:
    """Restore the guard's response if an error handler has replaced it in a way not allowed.

    The app's handlers may change a refusal's body and status, but may not turn a 4xx into a 5xx.
    They may not change the response to a preflight or a redirect to HTTPS.
    """
    answer, refusal = exchange.answer, exchange.refusal
    if answer is None or status.startswith(str(answer.status_code)):
        return status, headers
    if refusal is not None and (refusal.code >= 500 or not status.startswith("5")):
        return status, headers
    return _replaced(answer, environ, status, headers, restored)


def _replaced(
    answer: Response | None,
    environ: WSGIEnvironment,
    status: str,
    headers: HeaderFields,
    restored: list[Iterable[bytes]],
) -> tuple[str, HeaderFields]:
    """Put another response in the place of an app's, if there is one."""
    if answer is None:
        return status, headers
    body, status, headers = answer.get_wsgi_response(environ)
    restored.append(body)
    return status, headers
