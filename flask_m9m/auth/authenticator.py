"""Authenticator: one scheme by which a caller proves who it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import M9MError
from ..http.address import Client
from ..identity import Identity
from ..ratelimit import RateLimit

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


Proved = tuple[Identity, Identity | None]
"""Who presented a credential, as that says, and as the app enriches it; `None` where the app has
not been asked yet."""


class Authenticator:
    """Finds its own kind of credential in a request, and judges it.

    Attributes:
        scheme: its name in settings and marks (`bearer`).
        ambient: whether browsers send such a credential by themselves, whichever page asks.
        fallback: whether it counts only where the request has no other credential; such a scheme
            is asked last.
    """

    scheme: str
    ambient: bool = False
    fallback: bool = False

    def find(self, environ: WSGIEnvironment) -> object | None:
        """Return the request's credential of this scheme, unjudged, or `None`."""
        raise NotImplementedError

    def authenticate(self, credential: Any, client: Client) -> Proved:
        """Return who presents this credential, or raise an error that derives from `M9MError`.

        Args:
            credential: what `find` returned.
            client: who sent it.
        """
        raise NotImplementedError

    def claimed(self, credential: Any) -> str | None:
        """Return who presented a credential that was refused, as far as it says so."""
        return None

    def limits(self, identity: Identity) -> Sequence[tuple[RateLimit, str]]:
        """Return the rate limits of the credential itself, each with what is counted under it."""
        return ()

    def challenge(self, realm: str, error: M9MError) -> str | None:
        """Return the `WWW-Authenticate` challenge for a request that ended in this error."""
        return None


def credential_of(environ: WSGIEnvironment, scheme: str) -> str | None:
    """Return what `Authorization` carries under a scheme, named in lower case.

    Several spaces may stand between the two, nothing else may (RFC 9110 §11.4).
    """
    value: str | None = environ.get("HTTP_AUTHORIZATION")
    if value is None:
        return None
    found, _, credential = value.partition(" ")
    return credential.lstrip(" ") if found.lower() == scheme else None


def challenges(
    authenticators: Iterable[Authenticator], realm: str, error: M9MError
) -> list[tuple[str, str]]:
    """Return a `WWW-Authenticate` field for each scheme that has one (RFC 9110 §11.6.1)."""
    found = [one.challenge(realm, error) for one in authenticators]
    return [("WWW-Authenticate", challenge) for challenge in found if challenge is not None]
