"""Request context: the current identity, user, client address, request id and CSP nonce."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from flask import Response, after_this_request, current_app, has_request_context
from werkzeug.local import LocalProxy

from ..auth.identity import Identity
from ..guard.exchange import IDENTITY, NOT_LOADED, Exchange
from ..guard.request_ids import REQUEST_ID
from ..http.headers import new_nonce
from .app_state import EXTENSION, current_exchange, current_request, current_state

if TYPE_CHECKING:
    from ..guard.pipeline import Guard


def settle_later(exchange: Exchange, guard: Guard) -> None:
    """After the request, refund the tokens of rate limits that do not count its response."""

    @after_this_request
    def settle(answer: Response) -> Response:
        guard.limits.settle(exchange, answer)
        return answer


def get_identity() -> Identity | None:
    """Get the caller of the current request.

    A route that asks for no authentication does not look at credentials; use
    `@require_auth(optional=True)` to recognize its callers.

    Returns:
        The caller's identity; `None` if the caller is not authenticated, or outside a request.
    """
    if not has_request_context():
        return None
    if EXTENSION in current_app.extensions:
        return current_exchange("get_identity()").identity
    identity: Identity | None = current_request().environ.get(IDENTITY)
    return identity


def get_client_address() -> str | None:
    """Get the client's IP address, as `server.trusted_proxies` report it.

    `request.remote_addr` is not changed: behind a proxy, it is the proxy's address.

    Returns:
        The address; `None` if the server knows none, as over a Unix socket that is not trusted.

    Raises:
        RuntimeError: there is no current request, or its app has no `M9M`.
    """
    return current_exchange("get_client_address()").client.address


def get_request_id() -> str | None:
    """Get the id of the current request, for logs and error reports.

    Returns:
        The id, which the response has as `X-Request-ID`; `None` outside a request.
    """
    if not has_request_context():
        return None
    if EXTENSION in current_app.extensions:
        return current_exchange("get_request_id()").request_id
    request_id: str | None = current_request().environ.get(REQUEST_ID)
    return request_id


def csp_nonce() -> str:
    """Get the response's nonce for `script` and `style` elements (CSP3 §2.3.1).

    The first call in a request adds the nonce to the response's `Content-Security-Policy`. In
    templates: `<script nonce="{{ csp_nonce() }}">`.

    Raises:
        RuntimeError: there is no current request, or its app has no `M9M`.
    """
    exchange = current_exchange("csp_nonce()")
    if exchange.nonce is None:
        exchange.nonce = new_nonce()
    return exchange.nonce


def _current_user() -> Any:
    exchange = current_exchange("current_user")
    if exchange.user is NOT_LOADED:
        load = current_state("current_user").callbacks.user_loader
        if load is None:
            raise RuntimeError(
                "current_user needs a loader: decorate a function with @m9m.user_loader"
            )
        if exchange.identity is None:  # not cached: authentication may follow
            return None
        user = load(exchange.identity)
        exchange.user = _awaited(user) if inspect.isawaitable(user) else user
    return exchange.user


def _awaited(result: Awaitable[Any]) -> Any:
    """Wait for the result of a coroutine function, in a sync view as in an async one.

    The coroutine runs in a thread of its own, in the request's context: a thread that runs an event
    loop already cannot run another.
    """

    async def wait() -> Any:
        return await result

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(copy_context().run, asyncio.run, wait()).result()


current_identity: Identity = LocalProxy(get_identity)  # type: ignore[assignment]
"""A proxy to the current request's `Identity`; it is false if the caller is not authenticated.

`get_identity()` returns the object itself, or `None`."""

current_user: Any = LocalProxy(_current_user)
"""A proxy to the app's own user object: the result of the `@m9m.user_loader` function.

The function is called when the proxy is first used, at most once per request. The proxy is false if
the caller is not authenticated."""
