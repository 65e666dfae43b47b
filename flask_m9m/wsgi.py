"""SealedApp: what an app's answers pass last, whoever made them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import ClosingIterator

from .errors import InternalError
from .exchange import EXCHANGE, Exchange
from .guard import Guard

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Headers = list[tuple[str, str]]

_SEALED = "m9m.sealed"
"""Where an environ holds the head that was sealed last; it may come out through other guards."""


class SealedApp:
    """Wraps a WSGI app and seals the head of every answer, at the last moment.

    Sealing here and nowhere else makes it happen exactly once for views, error handlers,
    static files, exceptions and whatever is mounted inside. An answer that the guard of a
    mounted app has sealed is left as it is.

    Args:
        wsgi_app: the app; it finds its exchange in the environ.
        prepare: returns the guard, asked before the first request.
        failed: called while an exception that left the app is handled: it logs that or raises it
            again.
    """

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        prepare: Callable[[], Guard],
        failed: Callable[[], None],
    ) -> None:
        self._wsgi_app = wsgi_app
        self._prepare = prepare
        self._failed = failed
        self._guard: Guard | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        guard = self._guard
        if guard is None:
            guard = self._guard = self._prepare()
        exchange = environ[EXCHANGE] = guard.begin(environ)
        exchange.sealed_later = True
        seal = guard.seal
        restored: list[Iterable[bytes]] = []
        started = False

        def start_sealed(status: str, headers: Headers, exc_info: Any = None) -> Any:
            nonlocal started
            started = True
            if environ.get(_SEALED) is not headers:  # else the guard of an app further in did it
                if exchange.ended:
                    status, headers = _restore(exchange, environ, status, headers, restored)
                headers = environ[_SEALED] = seal(exchange, status, headers)
            if exc_info is None:
                return start_response(status, headers)
            return start_response(status, headers, exc_info)

        try:
            body = self._wsgi_app(environ, start_sealed)
            if not started:
                body = first = begun(body)
                if not started:
                    first.close()
                    raise RuntimeError("the app did not call start_response")
        except Exception:
            self._failed()
            error = guard.render(exchange, InternalError())
            body, status, headers = error.get_wsgi_response(environ)
            start_sealed(status, headers, sys.exc_info() if started else None)
        if restored:
            return ClosingIterator(restored[0], getattr(body, "close", None))
        return body


def begun(body: Iterable[bytes]) -> ClosingIterator:
    """Run an answer's body as far as its first part, for what it raises before."""
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
    headers: Headers,
    restored: list[Iterable[bytes]],
) -> tuple[str, Headers]:
    """Put back what the guard had answered and a handler made something else of.

    A refusal may get another body and status from the app's handlers, but no server error; a
    preflight's answer and a redirect to HTTPS are nobody else's.
    """
    answer, refusal = exchange.answer, exchange.refusal
    if answer is None or status.startswith(str(answer.status_code)):
        return status, headers
    if refusal is not None and (refusal.code >= 500 or not status.startswith("5")):
        return status, headers
    body, status, headers = answer.get_wsgi_response(environ)
    restored.append(body)
    return status, headers
