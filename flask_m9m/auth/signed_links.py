"""Signed links: values and URLs with an HMAC signature, a purpose and an expiry time.

A key is HKDF-SHA256(secret, no salt, info `flask-m9m signed link v1`, 32 bytes); the secret is
`security.jwt.secret` or, to verify only, an entry of `previous_secrets`. A signature is HMAC-SHA256
under HMAC-SHA256(key, `value:` and the purpose) for values, and under HMAC-SHA256(key, `url:` and
the purpose) for URLs: itsdangerous' key derivation `hmac`.

A value is `payload.expiry.signature`:

    payload     its JSON in UTF-8, as base64url; never compressed
    expiry      the first second since the epoch at which the value is expired, in decimal
    signature   of `payload.expiry`, as base64url

A URL has a parameter `signature=expiry.signature`. The signed text is four lines, separated by line
feeds:

    expiry      as above
    method      in upper case; `GET` for `HEAD` too
    path        `SCRIPT_NAME` and `PATH_INFO`, percent-decoded and encoded again
    query       each `name=value`, decoded (`+` is a space) and encoded again, joined by `&`;
                sorted by name, the values of a name in their original order; without `signature`

A fifth line follows where the route's rule has a variable in its host or subdomain:

    host        in lower case, without the port if it is the scheme's default

Encoding leaves the unreserved characters of RFC 3986 §2.3 as they are, and `/` in a path. Every
other byte becomes `%` with two upper-case hex digits. base64url has no padding, and its unused bits
are zero.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import string
import time
from binascii import a2b_qp
from collections.abc import Callable, Sequence
from datetime import timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode
from werkzeug.wsgi import get_host

from ..errors import InvalidSignature, Problem, SettingsError
from ..settings.arguments import check_method, check_text, checked_duration
from ..settings.models import JWTSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

LONGEST = 8_192
"""The longest accepted signed value, and the longest accepted path and query, in characters."""

PARAMETER = "signature"

_INFO = b"flask-m9m signed link v1"
_MAX_SIGNED_TEXT = 8_000  # characters; with the signature a query stays within LONGEST
_MOST_PARAMETERS = 256  # of a signed URL, its signature included
_STAMP = r"(?P<expiry>[0-9]{1,12})\.(?P<signature>[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])"
_UNRESERVED = f"{string.ascii_letters}{string.digits}_.-~".encode()
_ENCODED = [chr(octet) if octet in _UNRESERVED else f"%{octet:02X}" for octet in range(256)]
_ESCAPE = re.compile(rb"%(?=[0-9A-Fa-f]{2})")
_URL_STAMP = re.compile(_STAMP)
_VALUE = re.compile(rf"(?P<payload>[A-Za-z0-9_-]+)\.{_STAMP}")

MaxAge = float | str | timedelta
Parameters = Sequence[tuple[str, str]]


class Links:
    """Signs values and URLs, and verifies them.

    Args:
        settings: the source of the secrets. With JWT switched off the secrets are unchecked, so
            links are switched off too.
        clock: seconds since the epoch.
    """

    def __init__(self, settings: JWTSettings, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._keys: list[bytes] = []  # oldest first, as itsdangerous expects
        if settings.secret is not None and settings.enabled is not False:
            secrets = (*reversed(settings.previous_secrets), settings.secret)
            texts = (secret.get_secret_value().encode() for secret in secrets)
            self._keys = [derived_key(text, _INFO) for text in texts]

    def sign(self, payload: Any, max_age: MaxAge, purpose: str = "") -> str:
        """Sign a value.

        Args:
            payload: JSON data; it is signed, not encrypted.
            max_age: how long the signature is valid, in seconds, as `"15m"` or as a `timedelta`;
                longer than zero, at most a century.
            purpose: the use that the value is meant for; `unsign` needs the same.

        Raises:
            ValueError: the payload is not JSON or is too long, or `max_age` is out of range.
            SettingsError: JWT is switched off.
        """
        signer = self._signer("value", purpose)
        signed = f"{base64_encode(_json(payload)).decode()}.{self._expiry(max_age)}"
        text = signer.sign(signed).decode()
        if len(text) > LONGEST:
            raise ValueError(
                f"payload is too long: the signed value has {len(text)} characters, "
                f"at most {LONGEST} are accepted"
            )
        return text

    def unsign(self, text: str | None, purpose: str = "") -> Any:
        """Verify a signed value and decode its payload.

        Raises:
            InvalidSignature: the text, its signature or its purpose is wrong, or it has expired.
            SettingsError: JWT is switched off.
        """
        signer = self._signer("value", purpose)
        readable = isinstance(text, str) and len(text) <= LONGEST
        parts = _VALUE.fullmatch(text) if readable else None  # type: ignore[arg-type]  # is a str
        if parts is None or not self._is_valid(
            signer, f"{parts['payload']}.{parts['expiry']}", parts
        ):
            raise InvalidSignature
        try:
            return json.loads(base64_decode(parts["payload"]).decode())
        except (BadData, ValueError, RecursionError):
            raise InvalidSignature from None

    def sign_url(
        self,
        url: str,
        max_age: MaxAge,
        method: str = "GET",
        purpose: str = "",
        host: str | None = None,
    ) -> str:
        """Add a signature to a URL, for requests with one method.

        Args:
            url: a path from the root of the host, or an absolute URL.
            max_age: as for `sign`.
            method: the request's method; a signature for `GET` is valid for `HEAD` too.
            purpose: the purpose of the route.
            host: the host to sign too, for a route whose rule has a variable in its host.

        Raises:
            ValueError: `url` is of another form, too long or signed already; the method is `HEAD`;
                or `max_age` is out of range.
            SettingsError: JWT is switched off.
        """
        signer = self._signer("url", purpose)
        check_text(url=url)
        check_method("method", method)
        parts = urlsplit(url)
        path = parts.path or ("/" if parts.netloc else "")
        hostless = not parts.netloc and url.startswith("//")
        if hostless or not path.startswith("/"):
            raise ValueError(f"url must be a path from the root or an absolute URL, found {url!a}")
        if method.upper() == "HEAD":
            raise ValueError("method must not be HEAD: sign for GET, which is valid for HEAD too")
        parameters = _parameters(parts.query.encode().decode("latin-1"))
        if any(name == PARAMETER for name, _ in parameters):
            raise ValueError(f"url has a parameter {PARAMETER!r} already: sign the URL without it")
        expiry = self._expiry(max_age)
        message = _url_message(expiry, method, unquote_to_bytes(path), parameters, host)
        if parts.query.count("&") + 2 > _MOST_PARAMETERS:
            raise ValueError(f"url must have fewer than {_MOST_PARAMETERS} parameters")
        length = max(len(message), len(path) + len(parts.query))
        if length > _MAX_SIGNED_TEXT:
            raise ValueError(
                f"url has {length} characters when encoded, at most {_MAX_SIGNED_TEXT} are accepted"
            )
        signature = f"{PARAMETER}={expiry}.{signer.get_signature(message).decode()}"
        query = f"{parts.query}&{signature}" if parts.query else signature
        return parts._replace(query=query).geturl()

    def admits(self, environ: WSGIEnvironment, purpose: str = "", host: str | None = None) -> bool:
        """Tell whether a request's URL has a single signature, and that it is valid.

        Args:
            environ: the request.
            purpose: the purpose of the route.
            host: the host that the signature must cover, as for `sign_url`.

        Raises:
            SettingsError: JWT is switched off.
        """
        signer = self._signer("url", purpose)
        query = environ.get("QUERY_STRING", "")
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        readable = len(path) + len(query) <= LONGEST and query.count("&") < _MOST_PARAMETERS
        parameters = _parameters(query) if readable else []
        signatures = [value for name, value in parameters if name == PARAMETER]
        stamp = _URL_STAMP.fullmatch(signatures[0]) if len(signatures) == 1 else None
        if stamp is None:
            return False
        others = [(name, value) for name, value in parameters if name != PARAMETER]
        message = _url_message(
            stamp["expiry"], environ["REQUEST_METHOD"], path.encode("latin-1"), others, host
        )
        return self._is_valid(signer, message, stamp)

    def _signer(self, kind: str, purpose: str) -> Signer:
        if not self._keys:
            found = "JWT is switched off, and links are signed with its secret"
            remedy = "set M9M_JWT_SECRET (run: flask m9m init)"
            raise SettingsError([Problem("security.jwt.secret", found, remedy)])
        check_text(purpose=purpose)
        salt = f"{kind}:{purpose}"
        return Signer(self._keys, salt, key_derivation="hmac", digest_method=hashlib.sha256)

    def _expiry(self, max_age: MaxAge) -> str:
        seconds = checked_duration("max_age", max_age)
        if seconds == 0:
            raise ValueError(
                f"max_age must be longer than zero and at most a century, found {max_age!r}"
            )
        return str(math.ceil(self._clock() + seconds))

    def _is_valid(self, signer: Signer, message: str, stamp: re.Match[str]) -> bool:
        """Tell whether a signature is authentic and has not expired."""
        authentic = signer.verify_signature(message, stamp["signature"])
        return authentic and self._clock() < int(stamp["expiry"])


def derived_key(secret: bytes, info: bytes) -> bytes:
    """Derive a key for one purpose, which reveals nothing about the secret (HKDF, RFC 5869)."""
    return HKDF(SHA256(), 32, salt=None, info=info).derive(secret)


def _json(payload: object) -> bytes:
    try:
        return json.dumps(
            payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except (TypeError, ValueError, RecursionError):
        raise ValueError("payload must be JSON in UTF-8, without NaN and infinity") from None


def _parameters(query: str) -> list[tuple[str, str]]:
    """Parse a query; each character of a name or value is one byte, as in WSGI."""
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return [(_decoded(name), _decoded(value)) for name, _, value in pairs]


def _decoded(text: str) -> str:
    octets = text.replace("+", " ").encode("latin-1")
    if b"%" in octets:
        # `urllib.parse` takes each percent sign apart, which costs a signed URL ten plain requests.
        octets = a2b_qp(_ESCAPE.sub(b"=", octets.replace(b"=", b"=3D")))
    return octets.decode("latin-1")


def signed_host(rule: object, environ: WSGIEnvironment) -> str | None:
    """Return the host that a signature must cover; `None` if the rule has no variable in it.

    A rule for `<tenant>.example.com` could otherwise be reached for another tenant.
    """
    places = (getattr(rule, "host", None), getattr(rule, "subdomain", None))
    if any("<" in place for place in places if place):
        return get_host(environ).lower()
    return None


def _url_message(
    expiry: str, method: str, path: bytes, parameters: Parameters, host: str | None
) -> str:
    """Build the signed text of a URL."""
    method = "GET" if method.upper() == "HEAD" else method.upper()
    # The values of a name are not sorted: a view may use only the first.
    ordered = sorted(parameters, key=itemgetter(0))
    query = "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in ordered)
    lines = (expiry, method, quote(path), query)
    return "\n".join(lines if host is None else (*lines, host))


def _encoded(text: str) -> str:
    octets = text.encode("latin-1")
    # A list is faster than the dictionary of `urllib.parse.quote`.
    return "".join(map(_ENCODED.__getitem__, octets)) if octets.strip(_UNRESERVED) else text
