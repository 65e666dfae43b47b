"""Cryptography that is no token's: so far, password hashing."""

from .passwords import LONGEST, PasswordHasher, in_turn, is_control, normalize

__all__ = ["LONGEST", "PasswordHasher", "in_turn", "is_control", "normalize"]
