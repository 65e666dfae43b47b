"""n8n's encrypted formats (`Salted__` AES-256-CBC, AES-256-GCM): for import and export only.

The old form, of every n8n that does not rotate its keys, is base64 (RFC 4648 §4) of

    magic         8 bytes, `Salted__`
    salt          8 bytes
    ciphertext    AES-256-CBC with PKCS #7 padding, of UTF-8

with D1 = MD5(password, salt), D2 = MD5(D1, password, salt), D3 = MD5(D2, password, salt); the key
is D1 D2 and the IV is D3 (OpenSSL's `EVP_BytesToKey`, one round). The password is the instance key:
in UTF-8 up to n8n 1.15 (crypto-js), the low bytes of its UTF-16 units since (Node's `binary`).
The form is not authenticated, so only a plaintext that is a JSON object is accepted.

The new form, since n8n 2.20, is `<key id>:<payload>`, the key id 1 to 36 of `A-Za-z0-9_-`, the
payload base64 of

    version       1 byte, 1
    salt          32 bytes
    tag           16 bytes
    ciphertext    AES-256-GCM without associated data, of UTF-8

with key (32) and IV (12) from HKDF-SHA256(data key, salt, info `n8n-encryption-v1`, 44 bytes). The
data key is a row of the table `deployment_key`: 64 hex digits, encrypted in this payload's form
under SHA-256(instance key in UTF-8). A row whose algorithm is `aes-256-cbc` contains a password,
and the payloads after its key id have the old form.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.padding import PKCS7

from ..errors import UnreadableImport

LONGEST = 2**25
"""Maximum length of a value, in characters."""

_MAGIC = b"Salted__"
_OLD_SALT = 8
_BLOCK = 16
_VERSION = 1
_SALT = 32
_TAG = 16
_HEAD = _SALT + _TAG
_INFO = b"n8n-encryption-v1"
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,36}")
_DATA_KEY = re.compile(rb"[0-9A-Fa-f]{64}")
_DOES_NOT_OPEN = (
    "n8n: the instance key does not match, or the value is damaged or not a JSON object"
)


@dataclass(frozen=True, slots=True)
class DataKey:
    """A row of n8n's table `deployment_key`.

    Attributes:
        id: the key id, which n8n writes in front of the values encrypted under the key.
        value: the wrapped key.
        algorithm: `aes-256-gcm` or `aes-256-cbc`.
    """

    id: str
    value: str = field(repr=False)
    algorithm: str


class N8nReader:
    """Decrypts the values of an n8n instance.

    Args:
        instance_key: its `N8N_ENCRYPTION_KEY`.
        data_keys: rows of `deployment_key`; without them only the old form can be read.

    Raises:
        ValueError: the instance key is empty or not Unicode, or two rows have the same id.
    """

    def __init__(self, instance_key: str, data_keys: Iterable[DataKey] = ()) -> None:
        self._passwords = _dialects(instance_key)
        self._wrapping = hashlib.sha256(instance_key.encode()).digest()
        rows = tuple(data_keys)
        self._rows = {row.id: row for row in rows}
        if len(self._rows) != len(rows):
            raise ValueError("n8n: two data keys have the same id")

    def read(self, value: str) -> dict[str, Any]:
        """Decrypt a value of either form to its JSON object.

        Raises:
            UnreadableImport: the value cannot be decrypted; the message says why.
        """
        text = value if isinstance(value, str) else ""
        if not 0 < len(text) <= LONGEST or not text.isascii():
            raise UnreadableImport(f"n8n: a value must be 1 to {LONGEST} ASCII characters")
        key_id, colon, payload = text.partition(":")
        if colon:
            found = self._read_prefixed(key_id, payload)
        else:
            found = _read_old(_parse_old(text), self._passwords)
        if found is None:
            raise UnreadableImport(_DOES_NOT_OPEN)
        return found

    def _read_prefixed(self, key_id: str, payload: str) -> dict[str, Any] | None:
        """Decrypt by the algorithm in the data key's row, which is never guessed."""
        if not _KEY_ID.fullmatch(key_id):
            raise UnreadableImport("n8n: the text before the colon is not a key id")
        row = self._rows.get(key_id)
        if row is None:
            raise UnreadableImport(
                f"n8n: unknown data key {key_id!r}; give its row of deployment_key"
            )
        parse = _PARSERS.get(row.algorithm)
        if parse is None:
            raise UnreadableImport(
                f"n8n: the data key {key_id!r} has an unsupported algorithm; "
                "known: aes-256-gcm, aes-256-cbc"
            )
        wrapped, sealed = _parse_new(row.value), parse(payload)
        data_key = _open_new(wrapped, self._wrapping)
        if data_key is None:
            raise UnreadableImport(
                f"n8n: the instance key does not decrypt the data key {key_id!r}"
            )
        read = _read_old_under if parse is _parse_old else _read_new_under
        return read(data_key, sealed)


def write_old(data: Mapping[str, Any], instance_key: str) -> str:
    """Encrypt a JSON object to the old form, which `n8n import:credentials` reads since 1.25.

    Raises:
        ValueError: the instance key is empty or not Unicode, or the data is not JSON.
    """
    try:
        text = json.dumps(dict(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        plaintext = text.encode()
    except (TypeError, RecursionError, UnicodeEncodeError):
        raise ValueError("n8n: data must be a JSON object") from None
    password, salt = _dialects(instance_key)[-1], os.urandom(_OLD_SALT)
    padder = PKCS7(_BLOCK * 8).padder()
    encryptor = _cbc(password, salt).encryptor()
    padded = padder.update(plaintext) + padder.finalize()
    ciphertext = encryptor.update(padded) + encryptor.finalize()
    return b64encode(_MAGIC + salt + ciphertext).decode()


def _parse_old(value: str) -> bytes:
    """Decode a value of the old form to its salt and ciphertext."""
    octets = _decode(value)
    blocks, rest = divmod(len(octets), _BLOCK)
    if not octets.startswith(_MAGIC) or blocks < 2 or rest:
        raise UnreadableImport(
            "n8n: unknown form: neither base64 of `Salted__` nor <key id>:<payload>"
        )
    return octets[len(_MAGIC) :]


def _parse_new(payload: str) -> bytes:
    """Decode a payload of the new form to its salt, tag and ciphertext."""
    octets = _decode(payload)
    if octets and octets[0] != _VERSION:
        raise UnreadableImport(f"n8n: unsupported version {octets[0]}; known: {_VERSION}")
    if len(octets) < 1 + _HEAD:
        raise UnreadableImport("n8n: the value is too short")
    return octets[1:]


# The decrypting functions below return `None` for wrong input: a traceback would show keys.


def _read_old(sealed: bytes, passwords: tuple[bytes, ...]) -> dict[str, Any] | None:
    for password in passwords:
        plaintext = _open_old(sealed, password)
        found = None if plaintext is None else _json_object(plaintext)
        if found is not None:
            return found
    return None


def _read_old_under(data_key: bytes, sealed: bytes) -> dict[str, Any] | None:
    text = data_key.decode("utf-8", "replace")
    return _read_old(sealed, _dialects(text)) if text else None


def _read_new_under(data_key: bytes, sealed: bytes) -> dict[str, Any] | None:
    if not _DATA_KEY.fullmatch(data_key):
        return None
    plaintext = _open_new(sealed, bytes.fromhex(data_key.decode()))
    return None if plaintext is None else _json_object(plaintext)


def _open_old(sealed: bytes, password: bytes) -> bytes | None:
    """Decrypt the old form, which is not authenticated: the result may be garbage."""
    decryptor = _cbc(password, sealed[:_OLD_SALT]).decryptor()
    padded = decryptor.update(sealed[_OLD_SALT:]) + decryptor.finalize()
    unpadder = PKCS7(_BLOCK * 8).unpadder()
    try:
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        return None


def _open_new(sealed: bytes, data_key: bytes) -> bytes | None:
    salt, tag, ciphertext = sealed[:_SALT], sealed[_SALT:_HEAD], sealed[_HEAD:]
    derived = HKDF(SHA256(), 44, salt=salt, info=_INFO).derive(data_key)
    try:
        return AESGCM(derived[:32]).decrypt(derived[32:], ciphertext + tag, None)
    except InvalidTag:
        return None


def _dialects(instance_key: str) -> tuple[bytes, ...]:
    """Return the passwords for an instance key: crypto-js's encoding first, then Node's."""
    if not instance_key:
        raise ValueError("n8n: the instance key must not be empty")
    try:
        passwords = (instance_key.encode(), instance_key.encode("utf-16-le")[::2])
    except UnicodeEncodeError:
        raise ValueError("n8n: the instance key must be valid Unicode") from None
    return tuple(dict.fromkeys(passwords))


def _cbc(password: bytes, salt: bytes) -> Cipher[modes.CBC]:
    """Return the cipher of the old form, whose key derivation uses MD5."""
    derived, digest = b"", b""
    while len(derived) < 48:
        digest = hashlib.md5(digest + password + salt, usedforsecurity=False).digest()
        derived += digest
    return Cipher(algorithms.AES256(derived[:32]), modes.CBC(derived[32:]))


def _decode(value: str) -> bytes:
    try:
        return b64decode(value, validate=True)
    except (ValueError, TypeError):
        pass
    raise UnreadableImport("n8n: the value is not base64")


def _json_object(plaintext: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(plaintext.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON (RFC 8259 §6)")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("out of range (RFC 8259 §6)")
    return number


_PARSERS = {"aes-256-gcm": _parse_new, "aes-256-cbc": _parse_old}
