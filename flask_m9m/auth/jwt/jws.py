"""JWS compact serialization (RFC 7515 §7.1): strict parsing, signing and signature verification.

A token is `base64url(header) . base64url(payload) . base64url(signature)`. Each part is canonical:
no padding, no white space, unused bits zero. The header and, in a JWT, the payload are JSON
objects in UTF-8 without duplicate names.
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from ...errors import InvalidToken
from .signing_keys import SigningKey, SigningKeyRing

LONGEST = 8_192
"""The longest accepted token, in characters."""

_LONGEST_HEADER = 2_048  # characters; anybody can have one parsed

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_STANDARD_LETTERS = str.maketrans("-_", "+/")
_LAST_LETTERS = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}
"""The final letters whose unused bits are zero, by the number of letters in the last group."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JWS(NamedTuple):
    """A parsed token, not verified."""

    header: Mapping[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes


def parse(token: str) -> JWS:
    """Parse a token without verifying it.

    Raises:
        InvalidToken: the token is malformed, or its header asks for an extension.
    """
    if len(token) > LONGEST:
        raise InvalidToken(f"the token has more than {LONGEST} characters")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise InvalidToken("the token is not three parts of base64url")
    if len(parts[1]) > _LONGEST_HEADER:
        raise InvalidToken(f"the token's header has more than {_LONGEST_HEADER} characters")
    signing_input = token[: parts.end(2)].encode("ascii")
    return JWS(_header(parts[1]), _decode(parts[2]), signing_input, _decode(parts[3]))


@lru_cache(64)
def _header(part: str) -> Mapping[str, Any]:
    """Parse a header. It is cached, since most tokens of a key have the same header."""
    header = parse_object(_decode(part))
    # No extension is supported (RFC 7515 §4.1.11), nor is an unencoded payload (RFC 7797).
    if "crit" in header or header.get("b64", True) is not True:
        raise InvalidToken("the header asks for an extension (crit or b64)")
    if not isinstance(header.get("kid", ""), str):
        raise InvalidToken("the header's kid is not a string")
    return MappingProxyType(header)


def verify(token: str, ring: SigningKeyRing) -> JWS:
    """Parse a token and verify its signature.

    The key determines the algorithm: a token that names another is refused (RFC 8725 §3.1).

    Raises:
        InvalidToken: the token is malformed, or no key of the ring signed it.
    """
    jws = parse(token)
    algorithm = jws.header.get("alg")
    for key in ring.candidates(jws.header.get("kid")):
        if key.algorithm == algorithm and key.verify(jws.signing_input, jws.signature):
            return jws
    raise InvalidToken("no configured key signed the token")


def sign(payload: dict[str, Any], key: SigningKey, typ: str) -> str:
    """Sign a payload and serialize the token.

    Args:
        payload: the claims.
        key: the signing key.
        typ: the header's `typ`.

    Raises:
        ValueError: the payload is not JSON in UTF-8, or the token would be longer than `LONGEST`.
    """
    header = {"alg": key.algorithm.value, "kid": key.kid, "typ": typ}
    signing_input = f"{_encode(_json(header))}.{_encode(_json(payload))}"
    token = f"{signing_input}.{_encode(key.sign(signing_input.encode('ascii')))}"
    if len(token) > LONGEST:
        raise ValueError(
            f"the token would have {len(token)} characters, at most {LONGEST} are accepted: "
            "shorten its subject, scopes, roles or claims"
        )
    return token


def inspect(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Decode a token's header and claims without verifying them.

    Raises:
        InvalidToken: the token is not a JWT.
    """
    jws = parse(token)
    return dict(jws.header), parse_object(jws.payload)


def parse_object(octets: bytes) -> dict[str, Any]:
    """Parse a JSON object strictly (RFC 8259).

    Raises:
        InvalidToken: the octets are not UTF-8 or not a JSON object, or contain a duplicate name, a
            number that is not finite or a lone surrogate.
    """
    try:
        text = octets.decode("utf-8")
        value = _DECODER.decode(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise InvalidToken("a part of the token is not valid JSON") from None
    if not isinstance(value, dict):
        raise InvalidToken("a part of the token is not a JSON object")
    return value


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate name")
    return members


def _parse_finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("number out of range")
    return number


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_reject_duplicates, parse_float=_parse_finite, parse_constant=_reject_constant
)


def _decode(part: str) -> bytes:
    """Decode base64url whose letters `_COMPACT` has checked."""
    rest = len(part) % 4
    if rest == 1 or (rest and part[-1] not in _LAST_LETTERS[rest]):
        raise InvalidToken("a part of the token is not canonical base64url")
    return a2b_base64(part.translate(_STANDARD_LETTERS) + "=" * (-rest % 4))


def _encode(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def _json(value: dict[str, Any]) -> bytes:
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except (TypeError, ValueError, RecursionError):
        raise ValueError("claims must be JSON in UTF-8, without NaN and infinity") from None
