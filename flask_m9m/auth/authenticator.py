"""Authenticator: one scheme by which a caller proves who it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from ..errors import M9MError
from ..identity import Identity

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class Authenticator(Protocol):
    """Finds its own kind of credential in a request, and judges it.

    Attributes:
        scheme: its name in settings and marks (`bearer`).
    """

    scheme: str

    def find(self, environ: WSGIEnvironment) -> str | None:
        """Return the request's credential of this scheme, unjudged, or `None`."""
        ...

    def authenticate(self, credential: str) -> Identity:
        """Return who presents this credential, or raise an error that derives from `M9MError`."""
        ...

    def challenge(self, realm: str, error: M9MError) -> str:
        """Return the `WWW-Authenticate` challenge for a request that ended in this error."""
        ...


def challenges(
    authenticators: Iterable[Authenticator], realm: str, error: M9MError
) -> list[tuple[str, str]]:
    """Return a `WWW-Authenticate` field for each scheme (RFC 9110 §11.6.1)."""
    return [("WWW-Authenticate", one.challenge(realm, error)) for one in authenticators]
