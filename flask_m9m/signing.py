"""Signed links: values and URLs that nobody but the app can have written.

A key is HKDF-SHA256(secret, no salt, info `flask-m9m signed link v1`, 32 bytes); the secret is
`security.jwt.secret` or, to verify only, one of its `previous_secrets`. A signature is HMAC-SHA256
under HMAC-SHA256(key, `value:` and the purpose), or under HMAC-SHA256(key, `url:` and the purpose):
itsdangerous' key derivation `hmac`.

A value is `payload.expiry.signature`:

    payload     its JSON in UTF-8, as base64url; never compressed
    expiry      the second since the epoch at which it is no longer good, in decimal
    signature   of `payload.expiry`, as base64url

A URL has a parameter `signature=expiry.signature`, and what is signed is four lines with a line
feed between:

    expiry      as above
    method      in upper case; `GET` stands for `HEAD` too
    path        `SCRIPT_NAME` and `PATH_INFO`, percent-decoded and encoded anew
    query       each `name=value`, decoded (`+` is a space) and encoded anew, with `&` between;
                sorted by name, values of one name in the order in which they came; without
                `signature`

Encoded anew, the unreserved characters of RFC 3986 §2.3 stand as they are, in a path `/` as well,
and every other byte is `%` with two hex digits in upper case. base64url has no padding, and its
unused bits are zero.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode, urlsplit

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from .errors import InvalidSignature, Problem, SettingsError
from .settings import JWTSettings, parse_duration

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

LONGEST = 8_192
"""Characters of the longest value, and of the longest query, that is looked at."""

PARAMETER = "signature"

_INFO = b"flask-m9m signed link v1"
_LONGEST_URL = 8_000  # characters of what is signed: with its signature a query stays in LONGEST
_STAMP = r"(?P<expiry>[0-9]{1,12})\.(?P<signature>[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])"
_URL_STAMP = re.compile(_STAMP)
_VALUE = re.compile(rf"(?P<payload>[A-Za-z0-9_-]+)\.{_STAMP}")

MaxAge = float | str | timedelta
Parameters = Sequence[tuple[str, str]]


class Links:
    """Signs values and URLs, and verifies them.

    Args:
        settings: where the secrets stand; with JWT switched off nobody has checked them, and
            links are switched off too.
        clock: seconds since the epoch.
    """

    def __init__(self, settings: JWTSettings, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._keys: list[bytes] = []  # the oldest first, as itsdangerous wants them
        if settings.secret is not None and settings.enabled is not False:
            secrets = (*reversed(settings.previous_secrets), settings.secret)
            texts = (secret.get_secret_value().encode() for secret in secrets)
            self._keys = [derived_key(text, _INFO) for text in texts]

    def sign(self, payload: Any, max_age: MaxAge, purpose: str = "") -> str:
        """Write a value down so that it can be trusted when it comes back.

        Args:
            payload: JSON data; anybody can read it.
            max_age: how long it is good, in seconds, as `"15m"` or as a `timedelta`; longer than
                zero, at most a century.
            purpose: what it is for; it is good for nothing else.

        Raises:
            ValueError: the payload is not JSON or too long, or `max_age` is out of range.
            SettingsError: JWT is switched off.
        """
        signer = self._signer("value", purpose)
        signed = f"{base64_encode(_json(payload)).decode()}.{self._expiry(max_age)}"
        text = signer.sign(signed).decode()
        if len(text) > LONGEST:
            raise ValueError(f"signed, it has {len(text)} characters: {LONGEST} are accepted")
        return text

    def unsign(self, text: str | None, purpose: str = "") -> Any:
        """Return the value in a signed text.

        Raises:
            InvalidSignature: for whatever is wrong with it.
            SettingsError: JWT is switched off.
        """
        signer = self._signer("value", purpose)
        readable = isinstance(text, str) and len(text) <= LONGEST
        parts = _VALUE.fullmatch(text) if readable else None  # type: ignore[arg-type]  # a text
        if parts is None or not self._holds(signer, f"{parts['payload']}.{parts['expiry']}", parts):
            raise InvalidSignature
        try:
            return json.loads(base64_decode(parts["payload"]).decode())
        except (BadData, ValueError, RecursionError):
            raise InvalidSignature from None

    def sign_url(self, url: str, max_age: MaxAge, method: str = "GET", purpose: str = "") -> str:
        """Return a URL with a signature, for requests by one method.

        Args:
            url: a path from the root of the host, or an absolute URL, whose host does not count.
            max_age: as for `sign`.
            method: one for `GET` is good for `HEAD` too.
            purpose: that of the route.

        Raises:
            ValueError: `url` is neither, is too long or is signed already; the method is `HEAD`;
                or `max_age` is out of range.
            SettingsError: JWT is switched off.
        """
        signer = self._signer("url", purpose)
        parts = urlsplit(url)
        path = parts.path or ("/" if parts.netloc else "")
        nowhere = not parts.netloc and url.startswith("//")
        if nowhere or not path.startswith("/"):
            raise ValueError(f"{url!a}: a path from the root, or an absolute URL")
        if method.upper() == "HEAD":
            raise ValueError("method='HEAD': sign for GET, which is good for HEAD too")
        parameters = _parameters(parts.query.encode().decode("latin-1"))
        if any(name == PARAMETER for name, _ in parameters):
            raise ValueError(f"{url!a}: it has a parameter {PARAMETER!r} already")
        expiry = self._expiry(max_age)
        message = _url_message(expiry, method, unquote_to_bytes(path), parameters)
        if len(message) > _LONGEST_URL:
            raise ValueError(f"a URL of {len(message)} characters: {_LONGEST_URL} can be signed")
        signature = f"{PARAMETER}={expiry}.{signer.get_signature(message).decode()}"
        query = f"{parts.query}&{signature}" if parts.query else signature
        return parts._replace(query=query).geturl()

    def admits(self, environ: WSGIEnvironment, purpose: str = "") -> bool:
        """Tell whether a request's URL has one signature, and that a good one.

        Raises:
            SettingsError: JWT is switched off.
        """
        signer = self._signer("url", purpose)
        query = environ.get("QUERY_STRING", "")
        parameters = _parameters(query) if len(query) <= LONGEST else []
        signatures = [value for name, value in parameters if name == PARAMETER]
        stamp = _URL_STAMP.fullmatch(signatures[0]) if len(signatures) == 1 else None
        if stamp is None:
            return False
        path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
        others = [one for one in parameters if one[0] != PARAMETER]
        message = _url_message(stamp["expiry"], environ["REQUEST_METHOD"], path, others)
        return self._holds(signer, message, stamp)

    def _signer(self, kind: str, purpose: str) -> Signer:
        if not self._keys:
            found = "JWT is switched off, and its secret is what signs links"
            remedy = "set M9M_JWT_SECRET (run: flask m9m init)"
            raise SettingsError([Problem("security.jwt.secret", found, remedy)])
        salt = f"{kind}:{purpose}"
        return Signer(self._keys, salt, key_derivation="hmac", digest_method=hashlib.sha256)

    def _expiry(self, max_age: MaxAge) -> str:
        seconds = parse_duration(max_age)
        if seconds == 0:
            raise ValueError(f"max_age={max_age!r}: longer than zero, at most a century")
        return str(math.ceil(self._clock() + seconds))

    def _holds(self, signer: Signer, message: str, stamp: re.Match[str]) -> bool:
        """Tell whether a signature is one of ours and its time not over."""
        ours = signer.verify_signature(message, stamp["signature"])
        return ours and self._clock() < int(stamp["expiry"])


def derived_key(secret: bytes, info: bytes) -> bytes:
    """Return a key for one purpose, from which nothing is learnt about the secret (RFC 5869)."""
    return HKDF(SHA256(), 32, salt=None, info=info).derive(secret)


def _json(payload: object) -> bytes:
    try:
        return json.dumps(
            payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"a payload is JSON: {error}") from None


def _parameters(query: str) -> list[tuple[str, str]]:
    """Return a query's parameters; a character stands for a byte, as in WSGI."""
    return parse_qsl(query, keep_blank_values=True, encoding="latin-1")


def _url_message(expiry: str, method: str, path: bytes, parameters: Parameters) -> str:
    """Return what is signed of a URL."""
    method = method.upper()
    # Which of a name's values comes first may decide what a view does: they are not sorted.
    query = urlencode(
        sorted(parameters, key=itemgetter(0)), quote_via=quote, safe="", encoding="latin-1"
    )
    return "\n".join((expiry, "GET" if method == "HEAD" else method, quote(path), query))
