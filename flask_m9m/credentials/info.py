"""What is known of a credential, without its data and with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..storage import SealedCredential


@dataclass(frozen=True, slots=True)
class CredentialInfo:
    """What is known of a stored credential without decrypting it.

    Attributes:
        id: its id.
        name: what it is for.
        type: its credential type.
        owner: whose it is; `None`: the app's own.
        resolve: whether `${NAME}` in its values stands for an environment variable.
        created_at: in UTC.
        updated_at: when its name or its data last changed.
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
        data: its fields, secrets among them.
    """

    data: Mapping[str, Any] = field(repr=False)


def info_of(record: SealedCredential) -> CredentialInfo:
    """Return what is known of a record without decrypting it."""
    return CredentialInfo(
        record.id,
        record.name,
        record.type,
        record.owner or None,
        record.resolve,
        record.created_at,
        record.updated_at,
    )
