"""The types of single settings (ports, durations, origins, …): their validation and messages."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, WithJsonSchema
from pydantic_core import PydanticCustomError

from .durations import DURATION_PATTERN, parse_duration
from .origins import parse_origin_rule

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REALM = re.compile(r"[ !#-\[\]-~]+")
_KEY_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_URL_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+|sqlite://|sqlite:///[^\x00-\x1f]+")
_LONGEST_NAME = 255  # characters, as of every name
_SECONDS_OR_TEXT = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": DURATION_PATTERN},
    ]
}
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_RESERVED_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "host", "origin"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"})


def _boolean(value: object) -> object:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else None
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("must be true or false")


def _not_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "must be a whole number")
    return value


def _text(value: str) -> str:
    if value and value.isprintable():
        return value
    raise ValueError("must be text without control characters, and not empty")


def _duration(value: Any) -> float:
    return parse_duration(value)


def _positive(value: float) -> float:
    if value > 0:
        return value
    raise ValueError('must be a duration longer than zero, such as "24h"')


def _header_value(value: object) -> object:
    """Validate a header's value (RFC 9110 §5.5); empty text or null switches the header off."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # x_xss_protection: 0
    if not isinstance(value, str):
        if value is None:
            return None
        raise ValueError("must be text, or null to switch it off")
    value = value.strip(" ")
    if all(" " <= character != "\x7f" and not "\x80" <= character <= "\x9f" for character in value):
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            pass
        else:
            return value or None
    raise ValueError(
        "must be printable Latin-1 text on one line (RFC 9110 §5.5), or null to switch it off"
    )


def _header_name(value: str) -> str:
    if _TOKEN.fullmatch(value):
        return value
    raise ValueError('must be the name of a header, such as "X-Request-Id" (RFC 9110 §5.6.2)')


def _key_header(value: str) -> str:
    if _TOKEN.fullmatch(value) and value.lower() not in _RESERVED_HEADERS:
        return value
    raise ValueError('must be the name of a header without another use, such as "X-API-Key"')


def _method(value: str) -> str:
    if value.upper() in _METHODS and value != value.upper():
        raise ValueError(f'methods are case-sensitive: write "{value.upper()}"')
    if value != "*" and _TOKEN.fullmatch(value):
        return value
    raise ValueError('must be the name of a method, such as "GET" (RFC 9110 §9.1)')


def _origin(value: str) -> str:
    return parse_origin_rule(value).text


def _host(value: str) -> str:
    if _HOST.fullmatch(value) and len(value) <= 253:
        return value
    try:
        ipaddress.IPv6Address(value)
    except ValueError:
        raise ValueError('must be a host name or an address, such as "127.0.0.1" or "::"') from None
    return value


def _network(value: str) -> str:
    accepted = 'must be an address or a network, such as "10.0.0.1" or "10.0.0.0/8"'
    if "%" in value or len(value) > 64:
        raise ValueError(accepted)
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(accepted) from None
    try:
        ipaddress.ip_network(value)
    except ValueError:
        address = value.partition("/")[0]
        raise ValueError(
            f'write "{network}" for the network, or "{address}" for one address'
        ) from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        raise ValueError(
            f'write "{mapped}/{network.prefixlen - 96}": mapped addresses are compared as IPv4'
        )
    return value


def _proxy(value: str) -> str:
    return value if value == "unix" else _network(value)


def _matching(pattern: re.Pattern[str], accepted: str) -> AfterValidator:
    def match(value: str) -> str:
        if pattern.fullmatch(value):
            return value
        raise ValueError(accepted)

    return AfterValidator(match)


def _username(value: str) -> str:
    if ":" not in value and len(value) <= _LONGEST_NAME:
        return value
    raise ValueError(
        f"must be a name of at most {_LONGEST_NAME} characters without a colon (RFC 7617 §2)"
    )


def _environment_name(value: str) -> str:
    if _NAME.fullmatch(value) and not value.upper().startswith(("M9M_", "N8N_")):
        return value
    raise ValueError("must be the name of an environment variable other than M9M_* and N8N_*")


def _secret(value: SecretStr) -> SecretStr:
    try:
        value.get_secret_value().encode()
    except UnicodeEncodeError:
        raise ValueError("must be text in UTF-8") from None
    return value


def _secret_url(value: SecretStr) -> SecretStr:
    if _URL.fullmatch(value.get_secret_value()):
        return value
    raise ValueError('must be a URL, such as "postgresql://user@db.example.com/name"')


Boolean = Annotated[bool, BeforeValidator(_boolean)]
Port = Annotated[int, Field(ge=1, le=65_535), BeforeValidator(_not_boolean)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000), BeforeValidator(_not_boolean)]
PrefixLength = Annotated[int, Field(ge=1, le=128), BeforeValidator(_not_boolean)]
MaxAge = Annotated[int, Field(ge=0, le=86_400), BeforeValidator(_not_boolean)]
Text = Annotated[str, AfterValidator(_text)]
Duration = Annotated[float, BeforeValidator(_duration), WithJsonSchema(_SECONDS_OR_TEXT)]
Period = Annotated[Duration, AfterValidator(_positive)]
HeaderValue = Annotated[str | None, BeforeValidator(_header_value)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
KeyHeader = Annotated[str, AfterValidator(_key_header)]
Method = Annotated[str, AfterValidator(_method)]
Origin = Annotated[str, AfterValidator(_origin)]
Host = Annotated[str, AfterValidator(_host)]
Network = Annotated[str, AfterValidator(_network)]
Proxy = Annotated[str, AfterValidator(_proxy)]
Realm = Annotated[str, _matching(_REALM, 'must be printable ASCII without " and \\, such as "m9m"')]
KeyPrefix = Annotated[
    str, _matching(_KEY_PREFIX, 'must be up to 32 letters, digits and "_.-", such as "m9m_sk_"')
]
UrlPrefix = Annotated[
    str, _matching(_URL_PREFIX, 'must be a path without a slash at its end, such as "/api/v1"')
]
Username = Annotated[Text, AfterValidator(_username)]
EnvironmentName = Annotated[str, AfterValidator(_environment_name)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
SecretUrl = Annotated[Secret, AfterValidator(_secret_url)]

AuditEvent = Literal[
    "authenticated",
    "authentication_failed",
    "access_denied",
    "rate_limited",
    "token_issued",
    "token_revoked",
    "api_key_created",
    "api_key_revoked",
    "user_changed",
    "credential_read",
    "credential_changed",
    "keys_rotated",
]
