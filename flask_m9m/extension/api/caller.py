"""Who calls the API, and whether they may manage anything by it."""

from __future__ import annotations

from dataclasses import replace

from ...auth.identity import Identity
from ...errors import AccessDenied
from ..app_state import current_exchange

MANAGE = "m9m:manage"
"""The scope by which an API key manages what its owner has."""


def managing_caller() -> Identity:
    """Return who calls a protected route, as the app enriches it.

    Raises:
        AccessDenied: it is an API key that may not manage anything.
    """
    return _both()[1]


def proved_caller() -> Identity:
    """Return who calls a protected route, as the credential says; the app may take scopes away.

    Raises:
        AccessDenied: it is an API key that may not manage anything.
    """
    proved, loaded = _both()
    return replace(proved, scopes=proved.scopes & loaded.scopes)


def denied(*scopes: str) -> AccessDenied:
    """Return the refusal of a request that lacks scopes."""
    error = AccessDenied()
    error.scopes = scopes
    return error


def _both() -> tuple[Identity, Identity]:
    exchange = current_exchange("the REST API")
    proved, loaded = exchange.proved_identity, exchange.identity
    assert proved is not None and loaded is not None  # noqa: S101, PT018  # the route is protected
    if proved.scheme == "api_key" and MANAGE not in proved.scopes & loaded.scopes:
        raise denied(MANAGE)
    return proved, loaded
