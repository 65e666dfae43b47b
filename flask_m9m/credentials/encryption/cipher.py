"""Cipher: encrypts and decrypts stored records and an app's own data (`m9m.cipher`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...errors import DecryptionFailed, Problem, SettingsError
from ...settings.models import CredentialSettings
from . import aead, fernet
from .encryption_keys import EncryptionKey, EncryptionKeyRing


class _Format(NamedTuple):
    prefix: str
    seal: Callable[[EncryptionKey, bytes, Sequence[bytes]], str]
    unseal: Callable[[EncryptionKey, str, Sequence[bytes]], bytes | None]


_BY_CIPHER = {
    "aes-256-gcm": _Format(aead.PREFIX, aead.seal, aead.unseal),
    "fernet": _Format(fernet.PREFIX, fernet.seal, fernet.unseal),
}
_BY_PREFIX = {format.prefix: format for format in _BY_CIPHER.values()}
PREFIXES = tuple(_BY_PREFIX)
"""The beginnings of envelopes, before the key's id."""
_ENVELOPE = re.compile(
    rf"(?P<format>{aead.PREFIX}|{fernet.PREFIX}):(?P<key_id>[0-9a-f]{{8}}):(?P<payload>[^:]+)"
)


@dataclass(frozen=True, slots=True)
class Record:
    """The record that an envelope is bound to: it does not decrypt as another record's.

    Attributes:
        id: the record's id.
        type: its credential type.
        owner: the subject that owns it; empty if it has no owner.
        resolve: whether `${NAME}` in its values is replaced by an environment variable.
    """

    id: str
    type: str
    owner: str = ""
    resolve: bool = False

    def __post_init__(self) -> None:
        if not self.id or not self.type:
            raise ValueError("a record needs an id and a type, neither of them empty")

    @property
    def parts(self) -> tuple[bytes, ...]:
        """The associated data, in UTF-8: id, type, owner, and `resolve` only if that is set.

        Raises:
            ValueError: a text contains an unpaired surrogate.
        """
        parts = self.id.encode(), self.type.encode(), self.owner.encode()
        return (*parts, b"resolve") if self.resolve else parts


class Cipher:
    """Encrypts under the primary key and decrypts under any key.

    It encrypts with the configured cipher, and decrypts envelopes of both ciphers.

    Args:
        settings: the keys and the cipher; every method needs `encryption_key`.

    Raises:
        ValueError: a key has none of the three forms.
        SettingsError: two keys of random bytes have the same id.
    """

    def __init__(self, settings: CredentialSettings) -> None:
        self._writer = _BY_CIPHER[settings.cipher]
        self._ring: EncryptionKeyRing | None = None
        if settings.encryption_key is not None:
            texts = (settings.encryption_key, *settings.previous_keys)
            self._ring = EncryptionKeyRing(
                [EncryptionKey(text.get_secret_value()) for text in texts]
            )

    @property
    def keys(self) -> EncryptionKeyRing:
        """The encryption keys.

        Raises:
            SettingsError: there is no encryption key.
        """
        if self._ring is None:
            found, remedy = "no encryption key", "set M9M_ENCRYPTION_KEY (run: flask m9m init)"
            raise SettingsError([Problem("credentials.encryption_key", found, remedy)])
        return self._ring

    def encrypt(self, plaintext: bytes, associated_data: bytes = b"") -> str:
        """Encrypt data of the app.

        Args:
            plaintext: at most 16 MiB.
            associated_data: the context that the envelope is bound to, such as a table, row and
                column; at most 64 KiB. It is not part of the envelope: give the same to decrypt.

        Returns:
            An envelope: ASCII without white space, of at most 4/3 of the plaintext's length and
            124 characters; with Fernet, 176 characters and 4/3 of the associated data's length.

        Raises:
            ValueError: an argument is too long.
            TypeError: an argument is not bytes.
            SettingsError: there is no encryption key, or two keys have the same id.
        """
        return self._encrypt(plaintext, _app_parts(associated_data))

    def decrypt(self, text: str, associated_data: bytes = b"") -> bytes:
        """Decrypt an envelope from `encrypt`, under the key that it names.

        Args:
            text: the envelope; any other value is refused.
            associated_data: the associated data that was given to `encrypt`.

        Raises:
            DecryptionFailed: the envelope, the key or the associated data is wrong; the `hint`
                names the key that the envelope needs.
            ValueError: the associated data is too long.
            TypeError: the associated data is not bytes.
            SettingsError: there is no encryption key, or two keys have the same id.
        """
        return self._decrypt(text, _app_parts(associated_data))

    @property
    def seal(self) -> str:
        """The beginning of new envelopes: the cipher's prefix and the primary key's id."""
        return f"{self._writer.prefix}:{self.keys.primary.id}"

    def encrypt_record(self, plaintext: bytes, record: Record) -> str:
        """Encrypt a stored record's data; raises the same errors as `encrypt`."""
        return self._encrypt(plaintext, record.parts)

    def decrypt_record(self, text: str, record: Record) -> bytes:
        """Decrypt a stored record's data; raises the same errors as `decrypt`."""
        return self._decrypt(text, record.parts)

    def _encrypt(self, plaintext: bytes, parts: Sequence[bytes]) -> str:
        _check_bytes("plaintext", plaintext)
        return self._writer.seal(self.keys.primary, plaintext, parts)

    def _decrypt(self, text: object, parts: Sequence[bytes]) -> bytes:
        envelope, keys = _parse(text), self.keys
        if envelope is None:
            raise DecryptionFailed
        key = keys.find(envelope["key_id"])
        if key is None:
            missing = "which the settings do not list"
            raise DecryptionFailed(f"it needs the key {envelope['key_id']}, {missing}")
        plaintext = _BY_PREFIX[envelope["format"]].unseal(key, envelope["payload"], parts)
        if plaintext is None:
            named = f"it names the key {envelope['key_id']}, which the settings list"
            raise DecryptionFailed(f"{named}; {DecryptionFailed.hint}")
        return plaintext


def key_id_of(text: object) -> str | None:
    """Return the key id that an envelope names; `None` if the text is not an envelope.

    The id is not authenticated: an attacker who can write envelopes can write any id.
    """
    envelope = _parse(text)
    return envelope["key_id"] if envelope else None


def _parse(text: object) -> re.Match[str] | None:
    return _ENVELOPE.fullmatch(text) if isinstance(text, str) else None


def _app_parts(associated_data: bytes) -> tuple[bytes, ...]:
    """Return the associated data of an app's own data: an empty record, and the app's own part."""
    _check_bytes("associated_data", associated_data)
    return b"", b"", b"", associated_data


def _check_bytes(argument: str, value: object) -> None:
    if not isinstance(value, bytes):
        raise TypeError(f"{argument} must be bytes, found {type(value).__name__}")
