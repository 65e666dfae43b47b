"""What a view can ask about its request."""

from __future__ import annotations

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
    """Refund, once there is a response, the tokens of limits that do not count it."""

    @after_this_request
    def settle(answer: Response) -> Response:
        guard.limits.settle(exchange, answer)
        return answer


def get_identity() -> Identity | None:
    """Return who is calling, or `None` where nobody proved anything or there is no request."""
    if not has_request_context():
        return None
    if EXTENSION in current_app.extensions:
        return current_exchange("get_identity()").identity
    identity: Identity | None = current_request().environ.get(IDENTITY)
    return identity


def get_client_address() -> str | None:
    """Return the client's address, seen through the trusted proxies.

    `None` where the server gives none, as over a Unix socket that is not trusted.
    """
    return current_exchange("get_client_address()").client.address


def get_request_id() -> str | None:
    """Return the current request's id, `X-Request-ID` of its answer; `None` without a request."""
    if not has_request_context():
        return None
    if EXTENSION in current_app.extensions:
        return current_exchange("get_request_id()").request_id
    request_id: str | None = current_request().environ.get(REQUEST_ID)
    return request_id


def csp_nonce() -> str:
    """Return this answer's nonce for `script` and `style` elements (CSP3 §2.3.1).

    The `Content-Security-Policy` of the answer allows it once it has been asked for.
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
            raise RuntimeError("current_user needs a function marked with @m9m.user_loader")
        if exchange.identity is None:  # not yet, maybe
            return None
        exchange.user = load(exchange.identity)
    return exchange.user


current_identity: Identity = LocalProxy(get_identity)  # type: ignore[assignment]
"""The request's `Identity`; false where there is none."""

current_user: Any = LocalProxy(_current_user)
"""What the function marked with `@m9m.user_loader` returns for the identity, loaded at most
once a request, when it is first read; false without an identity."""
