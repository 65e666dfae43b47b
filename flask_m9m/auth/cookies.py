"""A session's tokens in cookies: browsers send them, and no script can read them.

    __Host-m9m-access     the access token; HttpOnly
    __Host-m9m-refresh    the refresh token; HttpOnly
    __Host-m9m-csrf       what a script of the page reads, and sends back as `X-CSRF-Token` with
                          every request that changes something

`__Host-` has browsers insist on Secure, on `Path=/` and on no `Domain`, so that no neighbouring
host can plant them (RFC 6265bis §4.1.3.2). The third one is base64url without padding of
HMAC-SHA256(key, sid); the key is HKDF-SHA256(`security.jwt.secret`, no salt, info `flask-m9m csrf
v1`, 32 bytes).
"""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from werkzeug.http import dump_cookie

from ..errors import CSRFFailed, InvalidToken, Problem, SettingsError
from ..http import csrf
from ..http.address import Client
from ..settings import JWTSettings
from ..signing import derived_key
from .authenticator import Authenticator, Proved
from .sessions import TokenPair
from .tokens import Tokens

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

ACCESS = "__Host-m9m-access"
REFRESH = "__Host-m9m-refresh"
CSRF = "__Host-m9m-csrf"
CSRF_HEADER = "X-CSRF-Token"

_FIELD = "HTTP_X_CSRF_TOKEN"
_INFO = b"flask-m9m csrf v1"
_LONGEST = 4_000  # characters of a value: browsers keep 4,096 octets with the name (§6.1)


class SessionCookies:
    """Writes a session's cookies, and reads them.

    Args:
        settings: the app's.
        clock: seconds since the epoch.

    Attributes:
        enabled: whether they are switched on.
    """

    def __init__(self, settings: JWTSettings, clock: Callable[[], float] = time.time) -> None:
        self.enabled = settings.cookie.enabled
        self._same_site = settings.cookie.same_site
        self._clock = clock
        secrets = [one for one in (settings.secret, *settings.previous_secrets) if one is not None]
        self._keys = [derived_key(one.get_secret_value().encode(), _INFO) for one in secrets]

    def fields(self, pair: TokenPair) -> list[tuple[str, str]]:
        """Return the `Set-Cookie` fields that give a browser a session's tokens.

        Raises:
            SettingsError: cookies are switched off.
            ValueError: a token is too long for a cookie.
        """
        self._check_enabled()
        if max(len(pair.access_token), len(pair.refresh_token)) > _LONGEST:
            raise ValueError(f"a token of more than {_LONGEST} characters does not fit in a cookie")
        return [
            self._field(ACCESS, pair.access_token, pair.expires_at),
            self._field(REFRESH, pair.refresh_token, pair.refresh_expires_at),
            self._field(CSRF, self.csrf_token(pair.sid), pair.refresh_expires_at),
        ]

    def clearing_fields(self) -> list[tuple[str, str]]:
        """Return the `Set-Cookie` fields that have a browser forget them.

        Raises:
            SettingsError: cookies are switched off.
        """
        self._check_enabled()
        return [self._field(name, "", None) for name in (ACCESS, REFRESH, CSRF)]

    def csrf_token(self, sid: str) -> str:
        """Return what requests of a session that change something have to bring."""
        return _csrf_token(self._keys[0], sid)

    def check_csrf(self, environ: WSGIEnvironment, sid: str) -> None:
        """Refuse a request that changes something and that no page of ours sent.

        Raises:
            CSRFFailed: it does not bring the session's CSRF token.
        """
        if csrf.is_safe(environ):
            return
        sent = environ.get(_FIELD, "").encode("latin-1", "replace")
        # Each is compared, so that the time does not tell which secret is the current one.
        found = [hmac.compare_digest(_csrf_token(key, sid).encode(), sent) for key in self._keys]
        if not any(found):
            raise CSRFFailed

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
            problem = Problem("security.jwt.cookie.enabled", "cookies are switched off", "true")
            raise SettingsError([problem])


class CookieAuthenticator(Authenticator):
    """Takes a session's access token from its cookie, where nothing else was sent.

    Args:
        tokens: verifies them.
        cookies: knows what else a request has to bring.
    """

    scheme = "cookie"
    ambient = True
    fallback = True

    def __init__(self, tokens: Tokens, cookies: SessionCookies) -> None:
        self._tokens = tokens
        self._cookies = cookies

    def find(self, environ: WSGIEnvironment) -> _Sent | None:
        """Return the access token and its request."""
        if "HTTP_AUTHORIZATION" in environ:
            return None
        token = cookie_of(environ, ACCESS)
        return None if token is None else _Sent(token, environ)

    def authenticate(self, credential: _Sent, client: Client) -> Proved:
        """Return who the token speaks for.

        Raises:
            InvalidToken: for whatever is wrong with it.
            CSRFFailed: it changes something, and no page of ours sent it.
            DatabaseUnavailable: it cannot be told whether it was revoked.
        """
        identity = self._tokens.verify(credential.token)
        sid = identity.claims.get("sid")
        if not isinstance(sid, str):
            raise InvalidToken("it is of no session")
        self._cookies.check_csrf(credential.environ, sid)
        return replace(identity, scheme=self.scheme), None


class _Sent(NamedTuple):
    token: str
    environ: WSGIEnvironment


def cookie_of(environ: WSGIEnvironment, name: str) -> str | None:
    """Return the value of a request's cookie; what stands there twice is nobody's and empty."""
    header: str | None = environ.get("HTTP_COOKIE")
    if header is None or name not in header:
        return None
    # Not as Werkzeug parses it, which decodes and strips: what a browser does not take for a
    # `__Host-` cookie is none, and what else stands in the field is nobody's concern.
    pairs = (part.strip(" \t").partition("=") for part in header.split(";"))
    values = [value for found, equals, value in pairs if found == name and equals]
    if not values:
        return None
    return values[0] if len(values) == 1 else ""


def _csrf_token(key: bytes, sid: str) -> str:
    digest = hmac.digest(key, sid.encode("utf-8", "surrogatepass"), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
