"""Forgery (CSRF, CSWSH): refuses requests that pages of other sites may have made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..auth.identity import Identity
from ..auth.schemes.authenticator import Authenticator
from ..http import csrf
from .exchange import Exchange

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


def check(
    exchange: Exchange, environ: WSGIEnvironment, authenticator: Authenticator, identity: Identity
) -> None:
    """Check a request whose credential browsers send automatically.

    Args:
        exchange: the request's exchange.
        environ: the request.
        authenticator: the credential's scheme.
        identity: the caller, as the credential proves it.

    Raises:
        CSRFFailed: the page's origin may not send credentials, or the CSRF token is missing.
    """
    cors = None if exchange.policy is None else exchange.policy.cors
    csrf.check(environ, exchange.client, cors)
    authenticator.check_forgery(environ, identity)


def recheck(
    exchange: Exchange, environ: WSGIEnvironment, authenticators: Iterable[Authenticator]
) -> None:
    """Check a request again whose method the app has replaced since its caller was identified.

    Raises:
        CSRFFailed: as for `check`.
    """
    proved = exchange.proved_identity
    for authenticator in authenticators:
        if proved is not None and authenticator.scheme == proved.scheme and authenticator.ambient:
            check(exchange, environ, authenticator, proved)
