"""Bearer tokens in the `Authorization` field (RFC 6750 §2.1)."""

from __future__ import annotations

from functools import partial

from ..errors import AccessDenied, FreshTokenRequired, InvalidToken, M9MError
from ..http.address import Client
from ..identity import is_scope
from .authenticator import Authenticator, Proved, credential_of
from .tokens import Tokens

_ERRORS: dict[type[M9MError], str] = {
    InvalidToken: "invalid_token",
    AccessDenied: "insufficient_scope",
    FreshTokenRequired: "insufficient_user_authentication",
}
_MOST_SCOPES = 16


class BearerAuthenticator(Authenticator):
    """Takes a JWT from `Authorization: Bearer …`.

    Form and query tokens (RFC 6750 §2.2, §2.3) are not looked at: they end up in logs.
    """

    scheme = "bearer"

    def __init__(self, tokens: Tokens) -> None:
        self._verify = tokens.verify
        # Every request comes by here: a partial costs no frame of its own.
        self.find = partial(credential_of, scheme="bearer")  # type: ignore[method-assign]

    def authenticate(self, credential: str, client: Client) -> Proved:
        """Return who the token speaks for.

        Raises:
            InvalidToken: for whatever is wrong with it.
            DatabaseUnavailable: it cannot be told whether it was revoked.
        """
        return self._verify(credential), None

    def challenge(self, realm: str, error: M9MError) -> str:
        """Return the challenge, with an `error` only where a token came (RFC 6750 §3)."""
        challenge = f'Bearer realm="{realm}"'
        if (word := _ERRORS.get(type(error))) is not None:
            challenge += f', error="{word}"'
        if isinstance(error, AccessDenied):
            # What cannot be a scope would break the field; many would make it too long.
            scopes = [scope for scope in error.scopes if is_scope(scope)][:_MOST_SCOPES]
            if scopes:
                challenge += f', scope="{" ".join(scopes)}"'
        return challenge
