"""What an API key looks like.

A key is the prefix of `security.api_keys`, 32 random characters of base62 (`0-9A-Za-z`; 190 bits),
and the CRC-32 of those 32 (in ASCII) in base62, most significant digit first, left-padded with
`0` to 6. So a key that was mistyped or cut is told without a query, and secret scanners can be
certain of one. What is kept is the SHA-256 of the whole key.
"""

from __future__ import annotations

import secrets
import string
from hashlib import sha256
from zlib import crc32

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM = 32
_CHECKSUM = 6


def make_key(prefix: str) -> str:
    """Return a new key."""
    random = "".join(secrets.choice(_BASE62) for _ in range(_RANDOM))
    return prefix + random + _checksum(random)


def is_key(text: str, prefix: str) -> bool:
    """Tell whether a text is a key by its form and its checksum."""
    if len(text) != len(prefix) + _RANDOM + _CHECKSUM or not text.startswith(prefix):
        return False
    random, checksum = text[len(prefix) : -_CHECKSUM], text[-_CHECKSUM:]
    return random.isascii() and random.isalnum() and checksum == _checksum(random)


def digest_of(key: str) -> bytes:
    """Return what a key is found by."""
    return sha256(key.encode()).digest()


def _checksum(random: str) -> str:
    number, digits = crc32(random.encode()), ""
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits
