"""Encryption keys and rings of them.

A key is 32 bytes. In the settings it is text in one of three forms, told apart by shape:

    base64      43 characters of RFC 4648 §4, with one `=` or without
    hex         64 digits
    text        anything else of at least 32 characters, in UTF-8, stretched by scrypt (RFC 7914)
                with N=2^17, r=8, p=1 and the salt `flask-m9m credential key`

A key's id is the first 8 hex digits of HKDF-SHA256(key, no salt, info `flask-m9m key id`): it
tells keys apart, and nothing about the key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import Problem, SettingsError
from ..processes.forking import fork_safe_lock
from ..settings.secrets import KEY_FORMS, key_material

KEY_BYTES = 32
"""Bytes of a key, and of each that is derived to encrypt with."""

_SHORTEST_TEXT = 32  # characters
_SALT = b"flask-m9m credential key"
_COST, _BLOCK_SIZE, _PARALLELISM = 2**17, 8, 1
_MEMORY = 129 * _BLOCK_SIZE * _COST + 2**20  # bytes; scrypt takes 128·N·r and a little


class EncryptionKey:
    """A key, of which only what is derived from it leaves this object.

    A text is stretched when something is first derived, which takes about half a second and
    128 MiB, once.

    Args:
        text: the key in one of the three forms.

    Raises:
        ValueError: it has none of them.
    """

    def __init__(self, text: str) -> None:
        self._id = ""
        material = key_material(text)
        if isinstance(material, str) and len(material) < _SHORTEST_TEXT:
            del text, material  # a traceback may show them
            raise ValueError(f"an encryption key is {KEY_FORMS}")
        self._lock = fork_safe_lock()
        self._text = material if isinstance(material, str) else ""
        self._octets = b"" if isinstance(material, str) else material
        self._derived: dict[tuple[bytes, int], bytes] = {}

    def __repr__(self) -> str:
        return f"EncryptionKey({self._id})"

    @property
    def is_stretched(self) -> bool:
        """Whether nothing is left to be stretched."""
        return not self._text

    @property
    def id(self) -> str:
        """The id: 8 hex digits in lower case."""
        if not self._id:
            self._id = self.derive(b"flask-m9m key id", 4).hex()
        return self._id

    def derive(self, info: bytes, length: int, salt: bytes | None = None) -> bytes:
        """Return key material for one purpose, by HKDF-SHA256 (RFC 5869).

        Without a salt it is always the same, and is derived once.

        Args:
            info: the purpose.
            length: bytes to return, at most 8,160.
            salt: random bytes, or none.
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
            if not self._text:  # another thread did it meanwhile
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
    """The keys that decrypt, the one that encrypts first; one is found by its id, never tried.

    Ids of texts are known, and compared, when the ring is first used; those of other keys at once.

    Args:
        keys: the primary one, then previous ones.

    Raises:
        ValueError: there is none.
        SettingsError: two have one id.
    """

    def __init__(self, keys: Sequence[EncryptionKey]) -> None:
        if not keys:
            raise ValueError("a key ring holds at least one key")
        self._keys = tuple(keys)
        self._found: dict[str, EncryptionKey] = {}
        _by_id([key for key in self._keys if key.is_stretched])

    def __repr__(self) -> str:
        return f"EncryptionKeyRing({list(self._keys)})"

    @property
    def primary(self) -> EncryptionKey:
        """The key that encrypts.

        Raises:
            SettingsError: two keys have one id.
        """
        self._use()
        return self._keys[0]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, in their order.

        Raises:
            SettingsError: two keys have one id.
        """
        return tuple(self._use())

    def find(self, key_id: str) -> EncryptionKey | None:
        """Return the key of an id, or `None` where there is none.

        Raises:
            SettingsError: two keys have one id.
        """
        return self._use().get(key_id)

    def _use(self) -> dict[str, EncryptionKey]:
        if not self._found:
            self._found = _by_id(self._keys)
        return self._found


def _by_id(keys: Sequence[EncryptionKey]) -> dict[str, EncryptionKey]:
    found = {key.id: key for key in keys}
    if len(found) != len(keys):
        accepted = "list each key once; if these differ, make a new one"
        raise SettingsError([Problem("credentials.previous_keys", "two keys of one id", accepted)])
    return found
