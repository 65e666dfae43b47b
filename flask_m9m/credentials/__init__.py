"""Stored credentials: encrypted storage, access by owner, key rotation, n8n import and export."""

from .caller import CURRENT, SYSTEM, Caller
from .credentials import Credentials
from .imports import Imported, ImportedRecord
from .info import Credential, CredentialInfo
from .stores import CredentialStore, DatabaseCredentialStore, MemoryCredentialStore
from .types import CredentialTypes

__all__ = [
    "CURRENT",
    "SYSTEM",
    "Caller",
    "Credential",
    "CredentialInfo",
    "CredentialStore",
    "CredentialTypes",
    "Credentials",
    "DatabaseCredentialStore",
    "Imported",
    "ImportedRecord",
    "MemoryCredentialStore",
]
