"""Cryptography that is no token's: encryption keys, the cipher, password hashing.

`n8n` stands apart: it is for imports and exports, and imported by nothing else.
"""

from .cipher import Cipher, Record, key_id_of
from .keys import EncryptionKey, KeyRing
from .passwords import LONGEST, PasswordHasher, in_turn

__all__ = [
    "LONGEST",
    "Cipher",
    "EncryptionKey",
    "KeyRing",
    "PasswordHasher",
    "Record",
    "in_turn",
    "key_id_of",
]
