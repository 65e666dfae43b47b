"""Cryptography that is no token's: so far, password hashing."""

from .passwords import LONGEST, PasswordHasher, in_turn

__all__ = ["LONGEST", "PasswordHasher", "in_turn"]
