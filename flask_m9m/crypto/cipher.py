"""Encryption under the keys of the settings, of records and of an app's own fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import DecryptionFailed, Problem, SettingsError
from ..settings import CredentialSettings
from . import aead, fernet
from .keys import EncryptionKey, EncryptionKeyRing


class _Format(NamedTuple):
    prefix: str
    seal: Callable[[EncryptionKey, bytes, Sequence[bytes]], str]
    unseal: Callable[[EncryptionKey, str, Sequence[bytes]], bytes | None]


_BY_CIPHER = {
    "aes-256-gcm": _Format(aead.PREFIX, aead.seal, aead.unseal),
    "fernet": _Format(fernet.PREFIX, fernet.seal, fernet.unseal),
}
_BY_PREFIX = {one.prefix: one for one in _BY_CIPHER.values()}
_ENVELOPE = re.compile(
    rf"(?P<format>{aead.PREFIX}|{fernet.PREFIX}):(?P<key_id>[0-9a-f]{{8}}):(?P<payload>[^:]+)"
)


@dataclass(frozen=True, slots=True)
class Record:
    """What a stored envelope is bound to, so that it opens nowhere else.

    Attributes:
        id: the record's id.
        type: its credential type.
        owner: whose it is; empty if nobody's.
        resolve: whether environment variables are put into its values.
    """

    id: str
    type: str
    owner: str = ""
    resolve: bool = False

    def __post_init__(self) -> None:
        if not self.id or not self.type:
            raise ValueError("a record has an id and a type")

    @property
    def parts(self) -> tuple[bytes, ...]:
        """Its associated data, in UTF-8: id, type, owner, and `resolve` only where that is set.

        Raises:
            ValueError: half of a surrogate pair is in it.
        """
        parts = self.id.encode(), self.type.encode(), self.owner.encode()
        return (*parts, b"resolve") if self.resolve else parts


class Cipher:
    """Encrypts under the primary key and decrypts under any; reads both ciphers, writes one.

    Args:
        settings: the keys and the cipher; without `encryption_key` nothing can be done.

    Raises:
        ValueError: a key has none of the three forms.
        SettingsError: two keys have one id, as far as that is known before texts are stretched.
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
        """The ring of keys.

        Raises:
            SettingsError: there is no encryption key.
        """
        if self._ring is None:
            found, remedy = "no encryption key", "set M9M_ENCRYPTION_KEY (run: flask m9m init)"
            raise SettingsError([Problem("credentials.encryption_key", found, remedy)])
        return self._ring

    def encrypt(self, plaintext: bytes, associated_data: bytes = b"") -> str:
        """Encrypt something of the app's.

        Args:
            plaintext: at most 16 MiB.
            associated_data: what it is bound to, a table, a row and a column say, at most 64 KiB;
                not encrypted, not kept, and the same is needed to decrypt.

        Returns:
            An envelope: ASCII without white space, of at most 4/3 of the plaintext and 124
            characters, or with Fernet 176 and 4/3 of the associated data.

        Raises:
            ValueError: something is too long.
            TypeError: something is no bytes.
            SettingsError: there is no encryption key, or two have one id.
        """
        return self._encrypt(plaintext, _own(associated_data))

    def decrypt(self, text: str, associated_data: bytes = b"") -> bytes:
        """Decrypt what `encrypt` returned, under any of the keys.

        Args:
            text: an envelope; anything else is refused too.
            associated_data: what it was bound to.

        Raises:
            DecryptionFailed: for whatever is wrong with it.
            ValueError: the associated data is too long.
            TypeError: the associated data is no bytes.
            SettingsError: there is no encryption key, or two have one id.
        """
        return self._decrypt(text, _own(associated_data))

    @property
    def seal(self) -> str:
        """How envelopes of today's cipher and key begin, up to the colon before the payload."""
        return f"{self._writer.prefix}:{self.keys.primary.id}"

    def encrypt_record(self, plaintext: bytes, record: Record) -> str:
        """Encrypt a stored record's data; raises what `encrypt` does."""
        return self._encrypt(plaintext, record.parts)

    def decrypt_record(self, text: str, record: Record) -> bytes:
        """Decrypt a stored record's data; raises what `decrypt` does."""
        return self._decrypt(text, record.parts)

    def _encrypt(self, plaintext: bytes, parts: Sequence[bytes]) -> str:
        _check_bytes("plaintext", plaintext)
        return self._writer.seal(self.keys.primary, plaintext, parts)

    def _decrypt(self, text: object, parts: Sequence[bytes]) -> bytes:
        envelope, keys = _parse(text), self.keys
        key = keys.find(envelope["key_id"]) if envelope else None
        if envelope is None or key is None:
            raise DecryptionFailed
        plaintext = _BY_PREFIX[envelope["format"]].unseal(key, envelope["payload"], parts)
        if plaintext is None:
            raise DecryptionFailed
        return plaintext


def key_id_of(text: object) -> str | None:
    """Return the id of the key that an envelope names, or `None` where it is no envelope.

    Nothing is decrypted: whoever can write an envelope can write any id into it.
    """
    envelope = _parse(text)
    return envelope["key_id"] if envelope else None


def _parse(text: object) -> re.Match[str] | None:
    return _ENVELOPE.fullmatch(text) if isinstance(text, str) else None


def _own(associated_data: bytes) -> tuple[bytes, ...]:
    """Return the parts of an app's own field: no record, and what the app gives."""
    _check_bytes("associated_data", associated_data)
    return b"", b"", b"", associated_data


def _check_bytes(argument: str, value: object) -> None:
    if not isinstance(value, bytes):
        raise TypeError(f"{argument} is bytes, not {type(value).__name__}")
