"""The compact serialisation of JWS (RFC 7515 §7.1), strictly: one way to write a token.

`base64url(header) . base64url(payload) . base64url(signature)`, each part canonical: no
padding, no white space, unused bits zero. The header and, in a JWT, the payload are JSON
objects in UTF-8 in which no name stands twice.
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

from ..errors import InvalidToken
from .keys import SigningKey, SigningKeyRing

LONGEST = 8_192
"""Characters of the longest token that is looked at."""

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_STANDARD_LETTERS = str.maketrans("-_", "+/")
_LAST_LETTERS = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}
"""The last letters whose unused bits are zero, by how many letters the last group has."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JWS(NamedTuple):
    """A token taken apart; nothing about it is verified."""

    header: Mapping[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes


def parse(token: str) -> JWS:
    """Take a token apart.

    Raises:
        InvalidToken: it is written in any other way, or its header asks for an extension.
    """
    if len(token) > LONGEST:
        raise InvalidToken(f"longer than {LONGEST} characters")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise InvalidToken("not three parts of base64url")
    signing_input = token[: parts.end(2)].encode("ascii")
    return JWS(_header(parts[1]), _decode(parts[2]), signing_input, _decode(parts[3]))


@lru_cache(64)
def _header(part: str) -> Mapping[str, Any]:
    """Read a header; the tokens of one key nearly always have the same."""
    header = parse_object(_decode(part))
    # None is understood here (RFC 7515 §4.1.11), and an unencoded payload neither (RFC 7797).
    if "crit" in header or header.get("b64", True) is not True:
        raise InvalidToken("its header asks for an extension")
    if not isinstance(header.get("kid", ""), str):
        raise InvalidToken("its kid is no text")
    return MappingProxyType(header)


def verify(token: str, ring: SigningKeyRing) -> JWS:
    """Take a token apart whose signature holds.

    The algorithm is the key's: a token that names another is refused (RFC 8725 §3.1).

    Raises:
        InvalidToken: it cannot be taken apart, or no key of the ring signed it.
    """
    jws = parse(token)
    algorithm = jws.header.get("alg")
    for key in ring.candidates(jws.header.get("kid")):
        if key.algorithm == algorithm and key.verify(jws.signing_input, jws.signature):
            return jws
    raise InvalidToken("no key of ours signed it")


def sign(payload: dict[str, Any], key: SigningKey, typ: str) -> str:
    """Write and sign a token.

    Raises:
        ValueError: the payload is not JSON in UTF-8, or the token would be too long to be
            accepted.
    """
    header = {"alg": key.algorithm.value, "kid": key.kid, "typ": typ}
    signing_input = f"{_encode(_json(header))}.{_encode(_json(payload))}"
    token = f"{signing_input}.{_encode(key.sign(signing_input.encode('ascii')))}"
    if len(token) > LONGEST:
        raise ValueError(f"the token would have {len(token)} characters, more than {LONGEST}")
    return token


def inspect(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a token's header and claims, not verified.

    Raises:
        InvalidToken: it is no JWT.
    """
    jws = parse(token)
    return dict(jws.header), parse_object(jws.payload)


def parse_object(octets: bytes) -> dict[str, Any]:
    """Return a JSON object (RFC 8259).

    Raises:
        InvalidToken: it is no object, not UTF-8, has a name twice, a number that is not finite,
            or half of a character.
    """
    try:
        text = octets.decode("utf-8")
        value = _DECODER.decode(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise InvalidToken("a part of it is not plain JSON") from None
    if not isinstance(value, dict):
        raise InvalidToken("a part of it is no JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name twice")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("infinite")
    return number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse)


def _decode(part: str) -> bytes:
    """Decode base64url of which `_COMPACT` has checked the letters."""
    rest = len(part) % 4
    if rest == 1 or (rest and part[-1] not in _LAST_LETTERS[rest]):
        raise InvalidToken("not canonical base64url")
    return a2b_base64(part.translate(_STANDARD_LETTERS) + "=" * (-rest % 4))


def _encode(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def _json(value: dict[str, Any]) -> bytes:
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        ).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"claims are JSON: {error}") from None
