"""The REST API's caller: its identity, and the scope `m9m:manage` that an API key needs."""

from __future__ import annotations

from dataclasses import replace

from ...auth.identity import Identity
from ...errors import AccessDenied
from ..app_state import current_exchange

MANAGE = "m9m:manage"
"""The scope that an API key needs to manage its owner's keys and credentials."""


def managing_caller() -> Identity:
    """Get the caller of a protected route, as the app's identity loader enriches it.

    Raises:
        AccessDenied: the caller is an API key without the scope `m9m:manage`.
    """
    return _identities()[1]


def proved_caller() -> Identity:
    """Get the caller of a protected route, as its credential proves it.

    The app's identity loader can take scopes away, but cannot add any.

    Raises:
        AccessDenied: the caller is an API key without the scope `m9m:manage`.
    """
    proved, loaded = _identities()
    return replace(proved, scopes=proved.scopes & loaded.scopes)


def access_denied(*scopes: str) -> AccessDenied:
    """Make the error for a request that lacks scopes."""
    error = AccessDenied()
    error.scopes = scopes
    return error


def _identities() -> tuple[Identity, Identity]:
    """Get the caller as the credential proves it, and as the identity loader enriches it."""
    exchange = current_exchange("the REST API")
    proved, loaded = exchange.proved_identity, exchange.identity
    assert proved is not None and loaded is not None  # noqa: S101, PT018  # the route is protected
    if proved.scheme == "api_key" and MANAGE not in proved.scopes & loaded.scopes:
        raise access_denied(MANAGE)
    return proved, loaded
