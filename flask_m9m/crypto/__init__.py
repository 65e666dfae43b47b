"""Cryptography that is no token's: encryption keys, password hashing."""

from .keys import EncryptionKey, KeyRing
from .passwords import LONGEST, PasswordHasher, in_turn

__all__ = ["LONGEST", "EncryptionKey", "KeyRing", "PasswordHasher", "in_turn"]
