"""Refusals: ends a request with an error: negotiates its format and adds its challenges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from werkzeug.wrappers import Response

from ..auth.schemes.authenticator import Authenticator, challenges
from ..errors import AccessDenied, AuthenticationRequired, ErrorFormat, M9MError
from ..http.headers import HeaderFields
from ..http.other_errors import OtherError
from .exchange import Exchange


class Refusals:
    """Makes the response of a request that the guard refuses.

    Args:
        authenticators: the enabled schemes, in the order of their challenges.
        realm: the realm that challenges name (RFC 9110 §11.5).
        error_format: the format of bodies for clients that do not accept problem details.
        response_class: the class of the responses.
    """

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        realm: str,
        error_format: ErrorFormat,
        response_class: type[Response],
    ) -> None:
        self._authenticators = authenticators
        self._realm = realm
        self._error_format = error_format
        self._response_class = response_class

    def refuse(
        self,
        exchange: Exchange,
        error: M9MError,
        authenticators: Sequence[Authenticator] | None = None,
    ) -> NoReturn:
        """Make an error's response, and raise the error; arguments as in `render`."""
        self.render(exchange, error, authenticators)
        raise error from None

    def render(
        self,
        exchange: Exchange,
        error: M9MError,
        authenticators: Sequence[Authenticator] | None = None,
    ) -> Response:
        """Make an error's response: its challenges, and its body in the negotiated format.

        Args:
            exchange: the request's exchange, which gets the error and the response.
            error: the reason for the refusal.
            authenticators: the schemes that the route accepts; by default every enabled scheme.
        """
        if isinstance(error, OtherError):  # the app's own: nothing was refused
            return self._body_of(exchange, error)
        exchange.refusal = error
        exchange.refusal_fields = error.headers
        asked = authenticators or self._authenticators
        if isinstance(error, AccessDenied):
            asked = [known for known in asked if known.scheme == exchange.scheme]
        if error.code == 401 or isinstance(error, AccessDenied):
            own = self._challenges(error, asked, exchange)
            exchange.refusal_fields = [*error.headers, *own]
        answer = exchange.answer = self._body_of(exchange, error)
        return answer

    def _body_of(self, exchange: Exchange, error: M9MError) -> Response:
        error_format = ErrorFormat.negotiate(self._error_format, exchange.accept or "")
        return error.render(error_format, self._response_class, exchange.request_id)

    def challenges(self, exchange: Exchange) -> HeaderFields:
        """Make the challenges of a 401 from the app (RFC 9110 §15.5.2)."""
        return self._challenges(AuthenticationRequired(), self._authenticators, exchange)

    def _challenges(
        self, error: M9MError, asked: Sequence[Authenticator], exchange: Exchange
    ) -> HeaderFields:
        """Make the challenges of an error; a script gets none that opens a browser's dialog."""
        if exchange.scripted:
            asked = [known for known in asked if not known.ambient] or asked
        return challenges(asked, self._realm, error)
