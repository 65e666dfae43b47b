"""HTTP Basic authentication (RFC 7617): a username and password in every request."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

from ...errors import InvalidCredentials, M9MError
from ...http.address import Client
from ..names import has_control, name_of
from ..sign_in import SignIn
from .authenticator import Authenticator, Proved, credential_of, denial

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_MAX_CREDENTIAL = 8_192  # characters of the longest accepted credential


class BasicAuthenticator(Authenticator):
    """Authenticates requests with `Authorization: Basic …`.

    Args:
        sign_in: verifies the name and password, and throttles attempts.
    """

    scheme = "basic"
    ambient = True

    def __init__(self, sign_in: SignIn) -> None:
        self._sign_in = sign_in

    def find(self, environ: WSGIEnvironment) -> str | None:
        """Read the credential, or `None` if the request has no `Authorization: Basic`."""
        return credential_of(environ, "basic")

    def authenticate(self, credential: str, client: Client) -> Proved:
        """Verify a name and password.

        Raises:
            InvalidCredentials: the credential is malformed, or the name or password is wrong.
            TooManyAttempts: too many attempts failed before.
            ServiceUnavailable: too many passwords are being verified.
        """
        signed_in = self._sign_in(*decode(credential), client)
        return signed_in.identity, signed_in.loaded

    def claimed_subject(self, credential: str) -> str | None:
        """Read the name in a rejected credential."""
        try:
            return decode(credential)[0]
        except InvalidCredentials:
            return None

    def challenge(self, realm: str, error: M9MError) -> str:
        """Build the challenge (RFC 7617 §2.1)."""
        return f'Basic realm="{realm}", charset="UTF-8"{denial(error)}'


def decode(credential: str) -> tuple[str, str]:
    """Decode a credential into a name, in NFC, and a password as it was typed (RFC 7617 §2).

    Raises:
        InvalidCredentials: the credential is not base64 of UTF-8 with a colon, has control
            characters, or its name has not 1 to 255 characters.
    """
    try:
        if len(credential) > _MAX_CREDENTIAL:
            raise ValueError
        octets = b64decode(credential.encode("ascii"), validate=True)
        if b64encode(octets).decode() != credential:
            raise ValueError
        text = octets.decode("utf-8")
        typed, colon, password = text.partition(":")
        name = name_of(typed)
        if name is None or not colon or has_control(password):
            raise ValueError
    except ValueError:
        raise InvalidCredentials from None
    return name, password
