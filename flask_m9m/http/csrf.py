"""CSRF protection for credentials that browsers send automatically (HTTP Basic, cookies).

A page of another site can make a browser send the password that it remembers. An unsafe request of
this kind is refused by Fetch Metadata and `Origin`, which pages cannot forge. Clients other than
browsers send neither. A WebSocket handshake is refused in the same way, although its method is
`GET`: no CORS keeps a page of another site from reading what comes over the connection (RFC 6455
§10.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CSRFFailed
from .address import Client
from .cors import CORSPolicy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

DISPATCHED_METHOD = "m9m.dispatched_method"
"""The environ's key for the method that the app dispatches, if it has replaced the request's."""

_SAFE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}


def check(environ: WSGIEnvironment, client: Client, cors: CORSPolicy | None) -> None:
    """Refuse an unsafe request or a handshake that a page of another site may have made.

    Args:
        environ: the request.
        client: the client that sent it.
        cors: the route's CORS policy.

    Raises:
        CSRFFailed: the request is unsafe or opens a WebSocket, and the page's origin is one that
            CORS does not allow to send credentials.
    """
    if is_safe(environ) and not is_handshake(environ):
        return
    site = environ.get("HTTP_SEC_FETCH_SITE", "").lower()
    if site == "same-origin":
        return  # `Origin` may still be null, under `Referrer-Policy: no-referrer`
    origin: str | None = environ.get("HTTP_ORIGIN")
    # A server joins repeated fields with commas: a foreign site among them counts.
    foreign = "cross-site" in site or "same-site" in site
    if origin is not None and origin.lower() != own_origin(environ, client):
        foreign = True
    if not foreign:
        return
    if origin is None or cors is None or not cors.allows_credentials(origin):
        raise CSRFFailed


def is_safe(environ: WSGIEnvironment) -> bool:
    """Tell whether a request's method is safe (RFC 9110 §9.2.1), and the one dispatched as well."""
    dispatched = environ.get(DISPATCHED_METHOD, "GET")
    return environ["REQUEST_METHOD"].upper() in _SAFE and dispatched.upper() in _SAFE


def is_handshake(environ: WSGIEnvironment) -> bool:
    """Tell whether a request may open a WebSocket (RFC 6455 §4.2.1).

    Servers differ in what they ask for: one of the fields that browsers send is enough.
    """
    return (
        "HTTP_SEC_WEBSOCKET_KEY" in environ
        or "websocket" in environ.get("HTTP_UPGRADE", "").lower()
    )


def own_origin(environ: WSGIEnvironment, client: Client) -> str:
    """Build the origin that the request was sent to."""
    scheme = "https" if client.secure else "http"
    host = client.host or environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
    return f"{scheme}://{host.lower().removesuffix(_DEFAULT_PORTS[scheme])}"
