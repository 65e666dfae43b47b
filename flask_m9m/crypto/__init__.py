"""Cryptography that is no token's: so far, password hashing."""

from .passwords import PasswordHasher, normalize

__all__ = ["PasswordHasher", "normalize"]
