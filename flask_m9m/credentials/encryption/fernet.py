"""Fernet envelopes: the alternative cipher, for apps whose rules or tools require Fernet.

An envelope is `m9m:f1:<key id>:<token>` in ASCII. The key id is 8 hex digits in lower case; the
token is one of the Fernet specification, base64url with padding, its unused bits zero, under the
key HKDF-SHA256(key, no salt, info `flask-m9m fernet v1`, 32 bytes). Anybody can read its creation
time in it. Its plaintext is

    length             4 bytes, big-endian
    associated data    of that length, the same as in `aead`, where it begins with `m9m:1`
    plaintext          the rest
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken

from .aead import LONGEST_PAYLOAD, associated_data, check_length
from .encryption_keys import KEY_BYTES, EncryptionKey

PREFIX = "m9m:f1"

_INFO = b"flask-m9m fernet v1"


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
    token = _fernet(key).encrypt(_header(key.id, parts) + plaintext).decode()
    return f"{PREFIX}:{key.id}:{token}"


def unseal(key: EncryptionKey, token: str, parts: Sequence[bytes]) -> bytes | None:
    """Decrypt an envelope's token, of any age.

    Args:
        key: the key that the envelope names.
        token: the envelope's text after the key id and colon.
        parts: the caller's associated data.

    Returns:
        The plaintext; `None` if the token, the key or the associated data is wrong.

    Raises:
        ValueError: a part is longer than 64 KiB.
    """
    header = _header(key.id, parts)
    plaintext = _open(_fernet(key), token)
    if plaintext is None or not plaintext.startswith(header):
        return None
    return plaintext[len(header) :]


def _fernet(key: EncryptionKey) -> Fernet:
    return Fernet(urlsafe_b64encode(key.derive(_INFO, KEY_BYTES)))


def _header(key_id: str, parts: Sequence[bytes]) -> bytes:
    associated = associated_data(key_id, parts)
    return len(associated).to_bytes(4) + associated


def _open(fernet: Fernet, token: str) -> bytes | None:
    """Decrypt a token in canonical base64url; `None` for any other text."""
    if len(token) > LONGEST_PAYLOAD or not token.isascii():
        return None
    try:
        if urlsafe_b64encode(urlsafe_b64decode(token)) != token.encode():
            return None
        return fernet.decrypt(token)
    except (InvalidToken, ValueError):
        return None
