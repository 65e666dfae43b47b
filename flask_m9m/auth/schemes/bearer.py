"""Bearer authentication: a JWT in the `Authorization` field (RFC 6750 §2.1)."""

from __future__ import annotations

from functools import partial

from ...errors import FreshTokenRequired, InvalidToken, M9MError
from ...http.address import Client
from ..tokens import Tokens
from .authenticator import Authenticator, Proved, credential_of, denial

_ERRORS: dict[type[M9MError], str] = {
    InvalidToken: "invalid_token",
    FreshTokenRequired: "insufficient_user_authentication",
}


class BearerAuthenticator(Authenticator):
    """Authenticates requests with `Authorization: Bearer …`.

    Tokens in forms and queries (RFC 6750 §2.2, §2.3) are ignored: they end up in logs.

    Args:
        tokens: verifies access tokens.
    """

    scheme = "bearer"

    def __init__(self, tokens: Tokens) -> None:
        self._verify = tokens.verify
        # This is on the hot path: a partial avoids a Python frame per request.
        self.find = partial(credential_of, scheme="bearer")  # type: ignore[method-assign]

    def authenticate(self, credential: str, client: Client) -> Proved:
        """Verify an access token.

        Raises:
            InvalidToken: the token is not valid, or was revoked.
            DatabaseUnavailable: the revocations cannot be read.
        """
        return self._verify(credential), None

    def challenge(self, realm: str, error: M9MError) -> str:
        """Build the challenge, with `error` only if the request had a token (RFC 6750 §3)."""
        word = _ERRORS.get(type(error))
        named = denial(error) if word is None else f', error="{word}"'
        return f'Bearer realm="{realm}"{named}'
