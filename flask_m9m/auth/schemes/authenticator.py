"""Authenticator: the base class of authentication schemes; `Authorization` and challenges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import AccessDenied, M9MError
from ...http.address import Client
from ...ratelimit.limit import RateLimit
from ..identity import Identity, is_scope

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_MOST_SCOPES = 16

Proved = tuple[Identity, Identity | None]
"""The identity of a verified credential, and the identity from the app's `identity_loader`, or
`None` where the loader has not run yet."""


class Authenticator:
    """An authentication scheme: finds its credential in a request and verifies it.

    Attributes:
        scheme: the scheme's name in settings and marks (`bearer`).
        ambient: whether browsers send the credential automatically, also for other sites' pages.
        fallback: whether the credential counts only if the request has no other; such a scheme is
            tried last.
    """

    scheme: str
    ambient: bool = False
    fallback: bool = False

    def find(self, environ: WSGIEnvironment) -> object | None:
        """Find the request's credential of this scheme, unverified; `None` if it has none."""
        raise NotImplementedError

    def authenticate(self, credential: Any, client: Client) -> Proved:
        """Verify a credential.

        Args:
            credential: the result of `find`.
            client: the client that sent the request.

        Raises:
            M9MError: the credential is not valid, or cannot be verified now.
        """
        raise NotImplementedError

    def check_forgery(self, environ: WSGIEnvironment, identity: Identity) -> None:
        """Refuse a request that lacks the scheme's own proof against forgery by other sites.

        Args:
            environ: the request.
            identity: the caller, as the credential proves it.

        Raises:
            CSRFFailed: the proof is missing or wrong.
        """

    def claimed_subject(self, credential: Any) -> str | None:
        """Read the subject that a rejected credential names, unverified, or return `None`."""
        return None

    def limits(self, identity: Identity) -> Sequence[tuple[RateLimit, str]]:
        """Return the rate limits of the credential itself, each with the client's key."""
        return ()

    def challenge(self, realm: str, error: M9MError) -> str | None:
        """Build the `WWW-Authenticate` challenge for an error; `None` if the scheme has none."""
        return None


def credential_of(environ: WSGIEnvironment, scheme: str) -> str | None:
    """Read the credential from an `Authorization` field of a given scheme.

    Several spaces may separate the scheme from the credential, nothing else may (RFC 9110 §11.4).

    Args:
        environ: the request.
        scheme: the HTTP authentication scheme, in lower case.
    """
    value: str | None = environ.get("HTTP_AUTHORIZATION")
    if value is None:
        return None
    found, _, credential = value.partition(" ")
    return credential.lstrip(" ") if found.lower() == scheme else None


def denial(error: M9MError) -> str:
    """Build the parameters of a challenge that name the missing scopes (RFC 6750 §3.1).

    Returns:
        The parameters, after a comma; empty unless the error is a missing scope or role.
    """
    if not isinstance(error, AccessDenied):
        return ""
    # A malformed scope would break the field, and many scopes would make it too long.
    scopes = [scope for scope in error.scopes if is_scope(scope)][:_MOST_SCOPES]
    named = f', scope="{" ".join(scopes)}"' if scopes else ""
    return f', error="insufficient_scope"{named}'


def challenges(
    authenticators: Iterable[Authenticator], realm: str, error: M9MError
) -> list[tuple[str, str]]:
    """Build a `WWW-Authenticate` field for each scheme with a challenge (RFC 9110 §11.6.1)."""
    found = [authenticator.challenge(realm, error) for authenticator in authenticators]
    return [("WWW-Authenticate", challenge) for challenge in found if challenge is not None]
