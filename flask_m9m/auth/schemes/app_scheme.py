"""AppScheme: an authentication scheme of the app's own; the names of the built-in schemes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from werkzeug.exceptions import Unauthorized

from ...errors import InvalidCredentials, M9MError
from ...http.address import Client
from ..identity import Identity
from .api_key import ApiKeyAuthenticator
from .authenticator import Authenticator, Proved, denial
from .basic import BasicAuthenticator
from .bearer import BearerAuthenticator
from .cookie import CookieAuthenticator

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    AuthenticateRequest = Callable[[WSGIEnvironment], Identity | None]
    """Authenticate a request: return its identity, `None` if it has no credential of this scheme,
    or raise an error if the credential is not valid."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_BUILT_IN: tuple[type[Authenticator], ...] = (
    BearerAuthenticator,
    ApiKeyAuthenticator,
    BasicAuthenticator,
    CookieAuthenticator,
)
BUILT_IN = frozenset(authenticator.scheme for authenticator in _BUILT_IN)
"""The names of the built-in schemes, which an app's own scheme cannot take."""


class AppScheme(Authenticator):
    """Authenticates requests with a function of the app.

    Args:
        scheme: the scheme's name in marks.
        authenticate: the app's function.
        ambient: whether browsers send the credential automatically.
    """

    def __init__(
        self, scheme: str, authenticate: AuthenticateRequest, *, ambient: bool = False
    ) -> None:
        self.scheme = scheme
        self.ambient = ambient
        self._authenticate = authenticate

    def challenge(self, realm: str, error: M9MError) -> str | None:
        """Name the scopes that the caller lacks; the app makes every other challenge."""
        denied = denial(error) if _TOKEN.fullmatch(self.scheme) else ""
        return f'{self.scheme} realm="{realm}"{denied}' if denied else None

    def find(self, environ: WSGIEnvironment) -> object | None:
        """Call the app's function; return its result, or the error that it raises."""
        try:
            return self._authenticate(environ)
        except M9MError as error:
            return error
        except Unauthorized:
            return InvalidCredentials()

    def authenticate(self, credential: object, client: Client) -> Proved:
        """Check the result of the app's function.

        Raises:
            M9MError: the function raised it.
            TypeError: the function did not return an identity with a subject.
        """
        if isinstance(credential, M9MError):
            raise credential
        if not isinstance(credential, Identity):
            raise TypeError(
                f"the authenticator {self.scheme!r} returned {type(credential).__name__}: "
                "return an Identity or None"
            )
        if not isinstance(credential.subject, str) or not credential.subject:
            raise TypeError(
                f"the authenticator {self.scheme!r} returned an Identity without a subject: "
                "return None if the request has no credential"
            )
        return replace(credential, scheme=self.scheme), None
