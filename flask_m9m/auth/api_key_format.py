"""API key format: prefix, random part and checksum; generation, validation and digest.

A key is the prefix of `security.api_keys`, 32 random characters of base62 (`0-9A-Za-z`; 190 bits),
and the CRC-32 of those 32 (in ASCII) in base62, most significant digit first, left-padded with
`0` to 6. The checksum detects a mistyped or truncated key without a query, and lets secret scanners
recognise keys reliably. The database stores the SHA-256 of the whole key.
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
    """Generate a new key."""
    random = "".join(secrets.choice(_BASE62) for _ in range(_RANDOM))
    return prefix + random + _checksum(random)


def is_key(text: str, prefix: str) -> bool:
    """Tell whether a text has the form and the checksum of a key."""
    if len(text) != len(prefix) + _RANDOM + _CHECKSUM or not text.startswith(prefix):
        return False
    random, checksum = text[len(prefix) : -_CHECKSUM], text[-_CHECKSUM:]
    return random.isascii() and random.isalnum() and checksum == _checksum(random)


def key_digest(key: str) -> bytes:
    """Hash a key with SHA-256, as it is stored and looked up."""
    return sha256(key.encode()).digest()


def _checksum(random: str) -> str:
    number, digits = crc32(random.encode()), ""
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits
