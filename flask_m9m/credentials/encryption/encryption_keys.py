"""Encryption keys and key rings: the three forms of a key, key ids, derivation by HKDF.

A key is 32 bytes. In the settings it is text in one of three forms, recognized by their shape:

    base64      43 characters of RFC 4648 §4, with one `=` or without
    hex         64 digits
    text        anything else of at least 32 characters, in UTF-8, stretched by scrypt (RFC 7914)
                with N=2^17, r=8, p=1 and the salt `flask-m9m credential key`

A key's id is the first 8 hex digits of HKDF-SHA256(key, no salt, info `flask-m9m key id`): it
identifies the key and reveals nothing of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ...errors import Problem, SettingsError
from ...processes.forking import fork_safe_lock
from ...settings.secrets import KEY_FORMS, key_material

KEY_BYTES = 32
"""Length of a key, and of each derived encryption key, in bytes."""

_SHORTEST_TEXT = 32  # characters
_SALT = b"flask-m9m credential key"
_COST, _BLOCK_SIZE, _PARALLELISM = 2**17, 8, 1
_MEMORY = 129 * _BLOCK_SIZE * _COST + 2**20  # bytes; scrypt takes 128·N·r and a little


class EncryptionKey:
    """An encryption key; only keys derived from it are exposed.

    A key in text form is stretched once, on first use, which takes about half a second and 128 MiB
    of memory.

    Args:
        text: the key in one of the three forms.

    Raises:
        ValueError: the text has none of the three forms.
    """

    def __init__(self, text: str) -> None:
        self._id = ""
        material = key_material(text)
        if isinstance(material, str) and len(material) < _SHORTEST_TEXT:
            del text, material  # a traceback may show local variables
            raise ValueError(f"an encryption key must be {KEY_FORMS}")
        self._lock = fork_safe_lock()
        self._text = material if isinstance(material, str) else ""
        self._octets = b"" if isinstance(material, str) else material
        self._derived: dict[tuple[bytes, int], bytes] = {}

    def __repr__(self) -> str:
        return f"EncryptionKey({self._id})"

    @property
    def is_stretched(self) -> bool:
        """Whether the key is ready to use: random bytes, or text that has been stretched."""
        return not self._text

    @property
    def id(self) -> str:
        """The key's id: 8 hex digits in lower case."""
        if not self._id:
            self._id = self.derive(b"flask-m9m key id", 4).hex()
        return self._id

    def derive(self, info: bytes, length: int, salt: bytes | None = None) -> bytes:
        """Derive key material for a purpose, by HKDF-SHA256 (RFC 5869).

        Without a salt the result is always the same, and is cached.

        Args:
            info: the purpose.
            length: length of the result in bytes, at most 8,160.
            salt: random bytes, or `None`.
        """
        if salt is None and (info, length) in self._derived:
            return self._derived[info, length]
        if self._text:
            self._stretch()
        material = HKDF(SHA256(), length, salt=salt, info=info).derive(self._octets)
        if salt is None:
            self._derived[info, length] = material
        return material

    def _stretch(self) -> None:
        with self._lock:
            if not self._text:  # another thread has stretched it
                return
            self._octets = hashlib.scrypt(
                self._text.encode("utf-8", "surrogatepass"),
                salt=_SALT,
                n=_COST,
                r=_BLOCK_SIZE,
                p=_PARALLELISM,
                maxmem=_MEMORY,
                dklen=KEY_BYTES,
            )
            self._text = ""


class EncryptionKeyRing:
    """The encryption keys of an app: the primary key encrypts, each decrypts envelopes of its id.

    Two keys with the same id are refused: at once for keys of random bytes, on first use for keys
    in text form, which have no id before they are stretched.

    Args:
        keys: the primary key, then the previous keys.

    Raises:
        ValueError: there are no keys.
        SettingsError: two keys have the same id.
    """

    def __init__(self, keys: Sequence[EncryptionKey]) -> None:
        if not keys:
            raise ValueError("an encryption key ring needs at least one key")
        self._keys = tuple(keys)
        self._keys_by_id: dict[str, EncryptionKey] = {}
        _by_id([key for key in self._keys if key.is_stretched])

    def __repr__(self) -> str:
        return f"EncryptionKeyRing({list(self._keys)})"

    @property
    def primary(self) -> EncryptionKey:
        """The key that encrypts.

        Raises:
            SettingsError: two keys have the same id.
        """
        self._index()
        return self._keys[0]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, the primary key's first.

        Raises:
            SettingsError: two keys have the same id.
        """
        return tuple(self._index())

    def find(self, key_id: str) -> EncryptionKey | None:
        """Find the key with an id.

        Raises:
            SettingsError: two keys have the same id.
        """
        return self._index().get(key_id)

    def _index(self) -> dict[str, EncryptionKey]:
        if not self._keys_by_id:
            self._keys_by_id = _by_id(self._keys)
        return self._keys_by_id


def _by_id(keys: Sequence[EncryptionKey]) -> dict[str, EncryptionKey]:
    keys_by_id = {key.id: key for key in keys}
    if len(keys_by_id) != len(keys):
        accepted = "list each key once; if they differ, replace one of them by a new key"
        raise SettingsError(
            [Problem("credentials.previous_keys", "two keys share an id", accepted)]
        )
    return keys_by_id
