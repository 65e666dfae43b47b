"""Fernet, for those whose rules or tools ask for it; the key is found by id, as elsewhere.

An envelope is `m9m:f1:<key id>:<token>` in ASCII. The key id is 8 hex digits in lower case; the
token is one of the Fernet specification, base64url with padding, its unused bits zero, under the
key HKDF-SHA256(key, no salt, info `flask-m9m fernet v1`, 32 bytes). Anybody can read in it when it
was made. Its plaintext is

    length             4 bytes, big-endian
    associated data    so many bytes, the same as in `aead`, where it begins with `m9m:1`
    plaintext          the rest
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken

from .aead import LONGEST_PAYLOAD, associated_data, check_length
from .keys import KEY_BYTES, EncryptionKey

PREFIX = "m9m:f1"

_INFO = b"flask-m9m fernet v1"


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
    token = _fernet(key).encrypt(_header(key.id, parts) + plaintext).decode()
    return f"{PREFIX}:{key.id}:{token}"


def unseal(key: EncryptionKey, token: str, parts: Sequence[bytes]) -> bytes | None:
    """Decrypt an envelope's token, however old; `None` for whatever is wrong with it.

    Args:
        key: the key that the envelope names.
        token: what stands behind the key id.
        parts: the caller's associated data.

    Raises:
        ValueError: a part is longer than 64 KiB.
    """
    header = _header(key.id, parts)
    opened = _open(_fernet(key), token)
    if opened is None or not opened.startswith(header):
        return None
    return opened[len(header) :]


def _fernet(key: EncryptionKey) -> Fernet:
    return Fernet(urlsafe_b64encode(key.derive(_INFO, KEY_BYTES)))


def _header(key_id: str, parts: Sequence[bytes]) -> bytes:
    associated = associated_data(key_id, parts)
    return len(associated).to_bytes(4) + associated


def _open(fernet: Fernet, token: str) -> bytes | None:
    """Decrypt a token that is written in the one way there is."""
    if len(token) > LONGEST_PAYLOAD or not token.isascii():
        return None
    try:
        if urlsafe_b64encode(urlsafe_b64decode(token)) != token.encode():
            return None
        return fernet.decrypt(token)
    except (InvalidToken, ValueError):
        return None
