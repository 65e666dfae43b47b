"""Credential and CredentialInfo: a stored credential's metadata, with and without its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..storage.records import SealedCredential


@dataclass(frozen=True, slots=True)
class CredentialInfo:
    """The metadata of a stored credential, readable without a key.

    Attributes:
        id: the record's id.
        name: its name.
        type: its credential type.
        owner: the subject that owns it; `None` for the app itself.
        resolve: whether `${NAME}` in its values is replaced by an environment variable.
        created_at: when it was created, in UTC.
        updated_at: when its name or its data last changed, in UTC.
    """

    id: str
    name: str
    type: str
    owner: str | None
    resolve: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Credential(CredentialInfo):
    """A stored credential, decrypted.

    Attributes:
        data: its fields, secrets among them; not shown by `repr`.
    """

    data: Mapping[str, Any] = field(repr=False)


def credential_of(record: SealedCredential, data: Mapping[str, Any]) -> Credential:
    """Return a record with its decrypted data."""
    info = info_of(record)
    known = {name: getattr(info, name) for name in CredentialInfo.__slots__}
    return Credential(**known, data=data)


def info_of(record: SealedCredential) -> CredentialInfo:
    """Return a record's metadata."""
    return CredentialInfo(
        record.id,
        record.name,
        record.type,
        record.owner or None,
        record.resolve,
        record.created_at,
        record.updated_at,
    )
