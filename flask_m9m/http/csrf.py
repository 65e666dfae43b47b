"""CSRF protection for credentials that browsers send automatically (HTTP Basic, cookies).

A page of another site can make a browser send the password that it remembers. An unsafe request of
this kind is refused by Fetch Metadata and `Origin`, which pages cannot forge. Clients other than
browsers send neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import CSRFFailed
from .address import Client
from .cors import CORSPolicy

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_SAFE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
_FOREIGN_SITES = frozenset(("cross-site", "same-site"))
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}


def check(environ: WSGIEnvironment, client: Client, cors: CORSPolicy | None) -> None:
    """Refuse an unsafe request that a page of another site may have made.

    Args:
        environ: the request.
        client: the client that sent it.
        cors: the route's CORS policy.

    Raises:
        CSRFFailed: the method is unsafe, and the page's origin is one that CORS does not allow to
            send credentials.
    """
    if is_safe(environ):
        return
    site = environ.get("HTTP_SEC_FETCH_SITE", "").lower()
    if site == "same-origin":
        return  # `Origin` may still be null, under `Referrer-Policy: no-referrer`
    origin: str | None = environ.get("HTTP_ORIGIN")
    foreign = site in _FOREIGN_SITES
    if origin is not None and origin.lower() != own_origin(environ, client):
        foreign = True
    if not foreign:
        return
    if origin is None or cors is None or not cors.allows_credentials(origin):
        raise CSRFFailed


def is_safe(environ: WSGIEnvironment) -> bool:
    """Tell whether a request's method is safe (RFC 9110 §9.2.1)."""
    return environ["REQUEST_METHOD"].upper() in _SAFE


def own_origin(environ: WSGIEnvironment, client: Client) -> str:
    """Build the origin that the request was sent to."""
    scheme = "https" if client.secure else "http"
    host = client.host or environ.get("HTTP_HOST") or environ.get("SERVER_NAME", "")
    return f"{scheme}://{host.lower().removesuffix(_DEFAULT_PORTS[scheme])}"
