"""Schemes that an app brings itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from werkzeug.exceptions import Unauthorized

from ..errors import InvalidCredentials, M9MError
from ..http.address import Client
from ..identity import Identity
from .api_key import ApiKeyAuthenticator
from .authenticator import Authenticator, Proved
from .basic import BasicAuthenticator
from .bearer import BearerAuthenticator
from .cookies import CookieAuthenticator

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    AuthenticateRequest = Callable[[WSGIEnvironment], Identity | None]
    """Return who sends a request, `None` where it has no credential of this scheme, or raise where
    it has a bad one."""

_BUILT_IN: tuple[type[Authenticator], ...] = (
    BearerAuthenticator,
    ApiKeyAuthenticator,
    BasicAuthenticator,
    CookieAuthenticator,
)
BUILT_IN = frozenset(authenticator.scheme for authenticator in _BUILT_IN)
"""The names of the built-in schemes, which an app's own scheme cannot take."""


class AppScheme(Authenticator):
    """Asks a function of the app's.

    Args:
        scheme: its name in marks.
        authenticate: the function.
        ambient: whether browsers send such a credential by themselves.
    """

    def __init__(
        self, scheme: str, authenticate: AuthenticateRequest, *, ambient: bool = False
    ) -> None:
        self.scheme = scheme
        self.ambient = ambient
        self._authenticate = authenticate

    def find(self, environ: WSGIEnvironment) -> object | None:
        """Return what the function makes of the request; `None` where it finds nothing."""
        try:
            return self._authenticate(environ)
        except M9MError as error:
            return error
        except Unauthorized:
            return InvalidCredentials()

    def authenticate(self, credential: object, client: Client) -> Proved:
        """Return whom the function named.

        Raises:
            M9MError: as the function raised it.
            TypeError: it returned something else.
        """
        if isinstance(credential, M9MError):
            raise credential
        if not isinstance(credential, Identity):
            raise TypeError(
                f"the authenticator {self.scheme!r} returned {type(credential).__name__}: "
                "return an Identity or None"
            )
        if not isinstance(credential.subject, str) or not credential.subject:
            raise TypeError(f"the authenticator {self.scheme!r} returned an Identity of nobody")
        return replace(credential, scheme=self.scheme), None
