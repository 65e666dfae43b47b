"""Cryptography that is no token's: so far, password hashing."""

from .passwords import LONGEST, PasswordHasher, in_turn, normalize

__all__ = ["LONGEST", "PasswordHasher", "in_turn", "normalize"]
