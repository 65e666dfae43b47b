"""Cookie authentication: session cookies with access and refresh tokens, and a CSRF token.

    __Host-m9m-access     the access token; HttpOnly
    __Host-m9m-refresh    the refresh token; HttpOnly
    __Host-m9m-csrf       the CSRF token, which a script of the page reads and sends as
                          `X-CSRF-Token` with every unsafe request

With `__Host-`, browsers require Secure, `Path=/` and no `Domain`, so that no neighbouring host can
set them (RFC 6265bis §4.1.3.2). The CSRF token is HMAC-SHA256(key, sid) as base64url without
padding; the key is HKDF-SHA256(`security.jwt.secret`, no salt, info `flask-m9m csrf v1`, 32 bytes).
"""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from werkzeug.http import dump_cookie

from ...errors import CSRFFailed, InvalidToken, M9MError, Problem, SettingsError
from ...http import csrf
from ...http.address import Client
from ...settings.arguments import check_type
from ...settings.models import JWTSettings
from ..identity import Identity
from ..sessions import TokenPair
from ..signed_links import derived_key
from ..tokens import Tokens
from .authenticator import Authenticator, Proved, denial

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

ACCESS = "__Host-m9m-access"
REFRESH = "__Host-m9m-refresh"
CSRF = "__Host-m9m-csrf"
CSRF_HEADER = "X-CSRF-Token"

_CSRF_FIELD = "HTTP_X_CSRF_TOKEN"
_CSRF_MISSING = f"Send the value of the cookie {CSRF} in the header {CSRF_HEADER}"
_INFO = b"flask-m9m csrf v1"
_MAX_VALUE = 4_000  # characters of a value: browsers limit name and value to 4,096 octets (§6.1)


class SessionCookies:
    """Writes the cookies of a session, and checks CSRF tokens.

    Args:
        settings: the cookie settings, and the secrets of CSRF tokens.
        clock: seconds since the epoch.

    Attributes:
        enabled: whether session cookies are switched on.
    """

    def __init__(self, settings: JWTSettings, clock: Callable[[], float] = time.time) -> None:
        self.enabled = settings.cookie.enabled
        self._same_site = settings.cookie.same_site
        self._clock = clock
        configured = (settings.secret, *settings.previous_secrets)
        secrets = [secret for secret in configured if secret is not None]
        self._keys = [derived_key(secret.get_secret_value().encode(), _INFO) for secret in secrets]

    def fields(self, pair: TokenPair) -> list[tuple[str, str]]:
        """Build the `Set-Cookie` fields that give a browser a session's tokens.

        Raises:
            SettingsError: cookies are switched off.
            ValueError: a token is too long for a cookie.
        """
        check_type(TokenPair, pair=pair)
        self._check_enabled()
        if max(len(pair.access_token), len(pair.refresh_token)) > _MAX_VALUE:
            raise ValueError(
                f"a token of more than {_MAX_VALUE} characters does not fit in a cookie: "
                "use fewer or shorter claims"
            )
        return [
            self._field(ACCESS, pair.access_token, pair.expires_at),
            self._field(REFRESH, pair.refresh_token, pair.refresh_expires_at),
            self._field(CSRF, self.csrf_token(pair.sid), pair.refresh_expires_at),
        ]

    def clearing_fields(self) -> list[tuple[str, str]]:
        """Build the `Set-Cookie` fields that delete a session's cookies from a browser.

        Raises:
            SettingsError: cookies are switched off.
        """
        self._check_enabled()
        return [self._field(name, "", None) for name in (ACCESS, REFRESH, CSRF)]

    def csrf_token(self, sid: str) -> str:
        """Compute the CSRF token that unsafe requests of a session must send."""
        return _csrf_token(self._keys[0], sid)

    def check_csrf(self, environ: WSGIEnvironment, sid: str) -> None:
        """Refuse an unsafe request without the CSRF token of its session.

        Raises:
            CSRFFailed: the token is missing or wrong.
        """
        if csrf.is_safe(environ):
            return
        sent = environ.get(_CSRF_FIELD, "").encode("latin-1", "replace")
        # All keys are compared, so that timing does not reveal which secret is the current one.
        found = [hmac.compare_digest(_csrf_token(key, sid).encode(), sent) for key in self._keys]
        if not any(found):
            raise CSRFFailed(None if sent else _CSRF_MISSING)

    def _field(self, name: str, value: str, expires_at: datetime | None) -> tuple[str, str]:
        left = 0 if expires_at is None else int(expires_at.timestamp() - self._clock())
        cookie = dump_cookie(
            name,
            value,
            max_age=max(0, left),
            secure=True,
            httponly=name != CSRF,
            samesite=self._same_site,
        )
        return "Set-Cookie", cookie

    def _check_enabled(self) -> None:
        if not self.enabled:
            problem = Problem(
                "security.jwt.cookie.enabled", "cookies are switched off", "set it to true"
            )
            raise SettingsError([problem])


class CookieAuthenticator(Authenticator):
    """Authenticates requests with a session cookie, if they have no other credential.

    Args:
        tokens: verifies access tokens.
        cookies: checks CSRF tokens.
    """

    scheme = "cookie"
    ambient = True
    fallback = True

    def __init__(self, tokens: Tokens, cookies: SessionCookies) -> None:
        self._tokens = tokens
        self._cookies = cookies

    def find(self, environ: WSGIEnvironment) -> str | None:
        """Find the access token."""
        return None if "HTTP_AUTHORIZATION" in environ else cookie_of(environ, ACCESS)

    def authenticate(self, credential: str, client: Client) -> Proved:
        """Verify the access token of a session.

        Raises:
            InvalidToken: the token is not valid, was revoked, or belongs to no session.
            DatabaseUnavailable: the revocations cannot be read.
        """
        identity = self._tokens.verify(credential)
        if not isinstance(identity.claims.get("sid"), str):
            raise InvalidToken("the token belongs to no session")
        return replace(identity, scheme=self.scheme), None

    def challenge(self, realm: str, error: M9MError) -> str | None:
        """Name the scopes that the access token lacks; no challenge makes a browser log in."""
        denied = denial(error)
        return f'Bearer realm="{realm}"{denied}' if denied else None

    def check_forgery(self, environ: WSGIEnvironment, identity: Identity) -> None:
        """Refuse an unsafe request without the CSRF token of its session.

        A WebSocket handshake needs none: pages cannot add a header field to it.
        """
        self._cookies.check_csrf(environ, identity.claims["sid"])


def cookie_of(environ: WSGIEnvironment, name: str) -> str | None:
    """Read a cookie's value; empty if the cookie was sent twice, `None` if it was not sent."""
    header: str | None = environ.get("HTTP_COOKIE")
    if header is None or name not in header:
        return None
    # Werkzeug's parser decodes and strips names, so that it accepts names which browsers do not
    # treat as `__Host-` cookies. Malformed cookies beside ours are ignored.
    pairs = (part.strip(" \t").partition("=") for part in header.split(";"))
    values = [value for found, equals, value in pairs if found == name and equals]
    if not values:
        return None
    return values[0] if len(values) == 1 else ""


def _csrf_token(key: bytes, sid: str) -> str:
    digest = hmac.digest(key, sid.encode("utf-8", "surrogatepass"), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
