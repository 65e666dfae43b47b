"""Authenticated encryption: AES-256-GCM under a key of each envelope's own, with a commitment.

An envelope is `m9m:1:<key id>:<payload>` in ASCII. The key id is 8 hex digits in lower case; the
payload is base64url (RFC 4648 §5) without padding, its unused bits zero, of

    salt         32 bytes, random
    commitment   32 bytes
    ciphertext   as long as the plaintext
    tag          16 bytes

HKDF-SHA256(key, salt, info `flask-m9m credential v1`, 76 bytes) is, in this order,

    key          32 bytes, for AES-256-GCM (NIST SP 800-38D)
    nonce        12 bytes
    commitment   32 bytes, compared before anything is decrypted

so no nonce comes twice under one key, and an envelope opens under one key only.

The associated data is a list of parts, each its length in 4 bytes (big-endian) and itself:
`m9m:1`, the key id, and what the caller gives, which may be nothing but is never left out.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hmac import compare_digest

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .keys import KEY_BYTES, EncryptionKey

PREFIX = "m9m:1"

LONGEST_PLAINTEXT = 2**24
"""Bytes of the longest plaintext: 16 MiB."""

LONGEST_PART = 2**16
"""Bytes of the longest part of associated data: 64 KiB."""

LONGEST_PAYLOAD = 2**25
"""Characters of the longest payload that is decoded: 16 MiB take two thirds of them."""

_INFO = b"flask-m9m credential v1"
_SALT = 32
_NONCE = 12
_COMMITMENT = 32
_TAG = 16
_DERIVED = KEY_BYTES + _NONCE + _COMMITMENT
_BODY = _SALT + _COMMITMENT


def seal(key: EncryptionKey, plaintext: bytes, parts: Sequence[bytes]) -> str:
    """Encrypt to an envelope.

    Args:
        key: the key that it will name.
        plaintext: at most 16 MiB.
        parts: the caller's associated data, at most 64 KiB each.

    Raises:
        ValueError: something is longer.
    """
    check_length(plaintext)
    associated = associated_data(key.id, parts)
    salt = os.urandom(_SALT)
    encryption_key, nonce, commitment = _split(key.derive(_INFO, _DERIVED, salt))
    ciphertext = AESGCM(encryption_key).encrypt(nonce, plaintext, associated)
    payload = urlsafe_b64encode(salt + commitment + ciphertext).rstrip(b"=").decode()
    return f"{PREFIX}:{key.id}:{payload}"


def unseal(key: EncryptionKey, payload: str, parts: Sequence[bytes]) -> bytes | None:
    """Decrypt an envelope's payload; `None` for whatever is wrong with it.

    No error leaves from here, whose traceback would show what is derived from the key.

    Args:
        key: the key that the envelope names.
        payload: what stands behind the key id.
        parts: the caller's associated data.

    Raises:
        ValueError: a part is longer than 64 KiB.
    """
    associated = associated_data(key.id, parts)
    octets = _decode(payload)
    if octets is None or len(octets) < _BODY + _TAG:
        return None
    encryption_key, nonce, commitment = _split(key.derive(_INFO, _DERIVED, octets[:_SALT]))
    if not compare_digest(octets[_SALT:_BODY], commitment):
        return None
    try:
        return AESGCM(encryption_key).decrypt(nonce, octets[_BODY:], associated)
    except InvalidTag:
        return None


def associated_data(key_id: str, parts: Sequence[bytes]) -> bytes:
    """Return associated data: the format, the key id and the caller's parts, each by its length.

    Raises:
        ValueError: a part is longer than 64 KiB.
    """
    joined = []
    for part in (PREFIX.encode(), key_id.encode(), *parts):
        if len(part) > LONGEST_PART:
            raise ValueError(f"associated data of {len(part)} bytes: {LONGEST_PART} are accepted")
        joined += [len(part).to_bytes(4), part]
    return b"".join(joined)


def check_length(plaintext: bytes) -> None:
    """Refuse what is too long to be encrypted.

    Raises:
        ValueError: it is longer than 16 MiB.
    """
    if len(plaintext) > LONGEST_PLAINTEXT:
        raise ValueError(f"{len(plaintext)} bytes: {LONGEST_PLAINTEXT} can be encrypted")


def _split(derived: bytes) -> tuple[bytes, bytes, bytes]:
    after_nonce = KEY_BYTES + _NONCE
    return derived[:KEY_BYTES], derived[KEY_BYTES:after_nonce], derived[after_nonce:]


def _decode(payload: str) -> bytes | None:
    """Return what base64url stands for, where that is the one way to write it."""
    if len(payload) > LONGEST_PAYLOAD or not payload.isascii():
        return None
    try:
        octets = urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    except ValueError:
        return None
    return octets if urlsafe_b64encode(octets).rstrip(b"=") == payload.encode() else None
