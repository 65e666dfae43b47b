"""AES-256-GCM envelopes: a derived key for each envelope, key commitment, associated data.

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

So a nonce is never used twice with a key, and an envelope decrypts under one key only.

The associated data is a list of parts, each preceded by its length in 4 bytes (big-endian):
`m9m:1`, the key id, and the caller's parts, which may be empty but are never left out.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hmac import compare_digest

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .encryption_keys import KEY_BYTES, EncryptionKey

PREFIX = "m9m:1"

LONGEST_PLAINTEXT = 2**24
"""Maximum length of the plaintext, in bytes: 16 MiB."""

LONGEST_PART = 2**16
"""Maximum length of a part of the associated data, in bytes: 64 KiB."""

LONGEST_PAYLOAD = 2**25
"""Maximum length of a payload to decode, in characters; 16 MiB take two thirds of it."""

_INFO = b"flask-m9m credential v1"
_SALT = 32
_NONCE = 12
_COMMITMENT = 32
_TAG = 16
_DERIVED = KEY_BYTES + _NONCE + _COMMITMENT
_BODY = _SALT + _COMMITMENT


def seal(key: EncryptionKey, plaintext: bytes, parts: Sequence[bytes]) -> str:
    """Encrypt a plaintext to an envelope.

    Args:
        key: the encryption key, whose id the envelope names.
        plaintext: at most 16 MiB.
        parts: the caller's associated data, at most 64 KiB each.

    Raises:
        ValueError: the plaintext or a part is longer.
    """
    check_length(plaintext)
    associated = associated_data(key.id, parts)
    salt = os.urandom(_SALT)
    encryption_key, nonce, commitment = _split(key.derive(_INFO, _DERIVED, salt))
    ciphertext = AESGCM(encryption_key).encrypt(nonce, plaintext, associated)
    payload = urlsafe_b64encode(salt + commitment + ciphertext).rstrip(b"=").decode()
    return f"{PREFIX}:{key.id}:{payload}"


def unseal(key: EncryptionKey, payload: str, parts: Sequence[bytes]) -> bytes | None:
    """Decrypt an envelope's payload.

    Invalid payloads raise no error, because its traceback would show derived keys.

    Args:
        key: the key that the envelope names.
        payload: the envelope's text after the key id and colon.
        parts: the caller's associated data.

    Returns:
        The plaintext; `None` if the payload, the key or the associated data is wrong.

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
    """Encode the associated data: format, key id and the caller's parts, length-prefixed.

    Raises:
        ValueError: a part is longer than 64 KiB.
    """
    joined = []
    for part in (PREFIX.encode(), key_id.encode(), *parts):
        if len(part) > LONGEST_PART:
            raise ValueError(
                f"associated data must be at most {LONGEST_PART} bytes, found {len(part)}"
            )
        joined += [len(part).to_bytes(4), part]
    return b"".join(joined)


def check_length(plaintext: bytes) -> None:
    """Refuse a plaintext that is too long to encrypt.

    Raises:
        ValueError: it is longer than 16 MiB.
    """
    if len(plaintext) > LONGEST_PLAINTEXT:
        raise ValueError(
            f"plaintext must be at most {LONGEST_PLAINTEXT} bytes, found {len(plaintext)}"
        )


def _split(derived: bytes) -> tuple[bytes, bytes, bytes]:
    after_nonce = KEY_BYTES + _NONCE
    return derived[:KEY_BYTES], derived[KEY_BYTES:after_nonce], derived[after_nonce:]


def _decode(payload: str) -> bytes | None:
    """Decode canonical base64url without padding; `None` for any other text."""
    if len(payload) > LONGEST_PAYLOAD or not payload.isascii():
        return None
    try:
        octets = urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    except ValueError:
        return None
    return octets if urlsafe_b64encode(octets).rstrip(b"=") == payload.encode() else None
