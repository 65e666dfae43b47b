"""Bearer tokens in the `Authorization` field (RFC 6750 §2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import AccessDenied, FreshTokenRequired, InvalidToken, M9MError
from ..tokens import Verifier

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_ERRORS: dict[type[M9MError], str] = {
    InvalidToken: "invalid_token",
    AccessDenied: "insufficient_scope",
    FreshTokenRequired: "insufficient_user_authentication",
}


class BearerAuthenticator:
    """Takes a JWT from `Authorization: Bearer …`.

    Form and query tokens (RFC 6750 §2.2, §2.3) are not looked at: they end up in logs.
    """

    scheme = "bearer"

    def __init__(self, verifier: Verifier) -> None:
        self.authenticate = verifier.verify

    def find(self, environ: WSGIEnvironment) -> str | None:
        """Return the token, or `None` where the request uses another scheme or none."""
        value: str | None = environ.get("HTTP_AUTHORIZATION")
        if value is None:
            return None
        # Several spaces may stand behind the scheme, nothing else may (RFC 9110 §11.4).
        scheme, _, token = value.partition(" ")
        return token.lstrip(" ") if scheme.lower() == "bearer" else None

    def challenge(self, realm: str, error: M9MError) -> str:
        """Return the challenge, with an `error` only where a token came (RFC 6750 §3)."""
        challenge = f'Bearer realm="{realm}"'
        if (word := _ERRORS.get(type(error))) is not None:
            challenge += f', error="{word}"'
        if isinstance(error, AccessDenied) and error.scopes:
            challenge += f', scope="{" ".join(error.scopes)}"'
        return challenge
