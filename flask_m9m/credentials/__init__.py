"""Stored credentials: encrypted, bound, and rotated."""

from .shelf import DatabaseShelf, MemoryShelf, Shelf
from .store import CURRENT, SYSTEM, Caller, Credential, CredentialInfo, Credentials
from .types import CredentialTypes

__all__ = [
    "CURRENT",
    "SYSTEM",
    "Caller",
    "Credential",
    "CredentialInfo",
    "CredentialTypes",
    "Credentials",
    "DatabaseShelf",
    "MemoryShelf",
    "Shelf",
]
