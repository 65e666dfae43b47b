"""HTTP Basic (RFC 7617): a name and a password in every request."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

from ..errors import InvalidCredentials, M9MError
from ..http.address import Client
from ..text import LONGEST_NAME, is_control, normalize
from .authenticator import Authenticator, Proved, credential_of
from .sign_in import SignIn

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_LONGEST = 8_192  # characters of a credential that are looked at


class BasicAuthenticator(Authenticator):
    """Takes a name and a password from `Authorization: Basic …`.

    Args:
        sign_in: tells who they are.
    """

    scheme = "basic"
    ambient = True

    def __init__(self, sign_in: SignIn) -> None:
        self._sign_in = sign_in

    def find(self, environ: WSGIEnvironment) -> str | None:
        """Return the credential, or `None` where the request uses another scheme or none."""
        return credential_of(environ, "basic")

    def authenticate(self, credential: str, client: Client) -> Proved:
        """Return whose name and password these are.

        Raises:
            InvalidCredentials: for whatever is wrong with them.
            TooManyAttempts: too many were wrong before.
            ServiceUnavailable: too many are being verified.
        """
        signed_in = self._sign_in(*decode(credential), client)
        return signed_in.identity, signed_in.loaded

    def claimed(self, credential: str) -> str | None:
        """Return the name in a credential."""
        try:
            return decode(credential)[0][:LONGEST_NAME]
        except InvalidCredentials:
            return None

    def challenge(self, realm: str, error: M9MError) -> str:
        """Return the challenge (RFC 7617 §2.1)."""
        return f'Basic realm="{realm}", charset="UTF-8"'


def decode(credential: str) -> tuple[str, str]:
    """Return the name and the password of a credential (RFC 7617 §2), both in NFC.

    Raises:
        InvalidCredentials: it is not base64 of UTF-8 with a colon, has control characters, or
            no name.
    """
    try:
        if len(credential) > _LONGEST:
            raise ValueError
        octets = b64decode(credential.encode("ascii"), validate=True)
        if b64encode(octets).decode() != credential:
            raise ValueError
        text = octets.decode("utf-8")
        name, colon, password = text.partition(":")
        if not (name and colon) or any(is_control(one) for one in text):
            raise ValueError
    except ValueError:
        raise InvalidCredentials from None
    return normalize(name), normalize(password)
