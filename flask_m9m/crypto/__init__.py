"""Cryptography that is no token's: password hashing here, the rest in modules of its own.

`keys` and `cipher` are imported where something is encrypted, and `n8n` for imports and exports
alone: an app that keeps no credentials loads none of them.
"""

from .passwords import LONGEST, PasswordHasher, in_turn

__all__ = ["LONGEST", "PasswordHasher", "in_turn"]
