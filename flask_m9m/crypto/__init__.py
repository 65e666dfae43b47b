"""Cryptography that is no token's: so far, password hashing."""

from .passwords import PasswordHasher, in_turn, normalize

__all__ = ["PasswordHasher", "in_turn", "normalize"]
