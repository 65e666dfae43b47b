"""Stored credentials and canaries: what is asked of their tables and changed in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    CursorResult,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)

from .records import Envelope, SealedCredential
from .tables import canaries, credentials

_ROW = (
    credentials.c.id,
    credentials.c.name,
    credentials.c.type,
    credentials.c.owner,
    credentials.c.resolve,
    credentials.c.envelope,
    credentials.c.created_at,
    credentials.c.updated_at,
)

# Statements that requests or rotations wait for are built once.
_BY_ID = select(*_ROW).where(credentials.c.id == bindparam("id"))
_SEALED_BY = (
    select(
        credentials.c.id,
        credentials.c.type,
        credentials.c.owner,
        credentials.c.resolve,
        credentials.c.envelope,
    )
    .where(credentials.c.sealed_with == bindparam("seal"), credentials.c.id > bindparam("after"))
    .order_by(credentials.c.id)
    .limit(bindparam("most"))
)
_RESEAL = (
    update(credentials)
    .where(credentials.c.id == bindparam("key"), credentials.c.envelope == bindparam("before"))
    .values(envelope=bindparam("following"), sealed_with=bindparam("seal"))
)

_SEALED = credentials.c.envelope
_LONGEST_SEAL = len("m9m:f1:01234567:")


class CredentialRows:
    """The rows of credentials and canaries, over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_all(self, made: Sequence[SealedCredential]) -> None:
        """Keep new credentials."""
        if made:
            self._connection.execute(insert(credentials), [_values(one) for one in made])

    def get(self, credential_id: str) -> SealedCredential | None:
        """Return a credential by its id."""
        row = self._connection.execute(_BY_ID, {"id": credential_id}).one_or_none()
        return None if row is None else SealedCredential(*row)

    def all(
        self, owner: str | None = None, type: str | None = None, *, envelopes: bool = True
    ) -> list[SealedCredential]:
        """Return credentials, the oldest first: one owner's or all, of one type or all.

        Args:
            owner: whose.
            type: of which type.
            envelopes: whether to read the encrypted data, which may be long; else it is empty.
        """
        columns = _ROW if envelopes else [literal("") if one is _SEALED else one for one in _ROW]
        query = select(*columns).order_by(credentials.c.created_at, credentials.c.id)
        if owner is not None:
            query = query.where(credentials.c.owner == owner)
        if type is not None:
            query = query.where(credentials.c.type == type)
        return [SealedCredential(*row) for row in self._connection.execute(query)]

    def replace(self, old: SealedCredential, new: SealedCredential) -> bool:
        """Put a credential in the place of an older state of itself.

        Returns:
            Whether that was still the one; if not, nothing was changed.
        """
        same = (credentials.c.id == old.id) & (credentials.c.envelope == old.envelope)
        result: CursorResult[Any] = self._connection.execute(
            update(credentials).where(same).values(**_values(new))
        )
        return result.rowcount == 1

    def delete(self, credential_id: str) -> bool:
        """Forget a credential; tell whether there was one."""
        result: CursorResult[Any] = self._connection.execute(
            delete(credentials).where(credentials.c.id == credential_id)
        )
        return result.rowcount == 1

    # Rotation

    def sealed_with(self) -> dict[str, int]:
        """Return with what credentials are sealed, and how many with each.

        It reads what the envelopes themselves begin with: a key that one needs must not be taken
        for one that nothing needs.
        """
        begins = func.substr(credentials.c.envelope, 1, _LONGEST_SEAL)
        found: dict[str, int] = {}
        query = select(begins, func.count()).group_by(begins)
        for begin, count in self._connection.execute(query):
            seal = ":".join(begin.split(":", 3)[:3])
            found[seal] = found.get(seal, 0) + count
        return found

    def seals(self) -> list[str]:
        """Return with what credentials are sealed; each is one look into the index."""
        found: list[str] = []
        query = (
            select(credentials.c.sealed_with)
            .where(credentials.c.sealed_with > bindparam("last"))
            .order_by(credentials.c.sealed_with)
            .limit(1)
        )
        last = ""
        while (row := self._connection.execute(query, {"last": last}).one_or_none()) is not None:
            last = row[0]
            found.append(last)
        return found

    def sealed_by(self, seal: str, after: str, most: int) -> list[Envelope]:
        """Return envelopes of one seal by id, from a place on.

        Args:
            seal: which cipher and which key.
            after: the id of the last one that was returned before.
            most: how many.
        """
        place = {"seal": seal, "after": after, "most": most}
        return [Envelope._make(row) for row in self._connection.execute(_SEALED_BY, place).all()]

    def reseal(self, seal: str, envelopes: Sequence[tuple[Envelope, str]]) -> int:
        """Replace envelopes that are still the ones that were read; return how many were.

        Args:
            seal: with what the new ones are sealed.
            envelopes: what was read, and the new one of each.
        """
        values = [
            {"key": old.id, "before": old.envelope, "following": new, "seal": seal}
            for old, new in envelopes
        ]
        result: CursorResult[Any] = self._connection.execute(_RESEAL, values)
        return result.rowcount

    # Canaries

    def canaries(self) -> Mapping[str, str]:
        """Return the canary of each key by its id."""
        rows = self._connection.execute(select(canaries.c.key_id, canaries.c.envelope))
        return {row[0]: row[1] for row in rows}

    def add_canary(self, key_id: str, envelope: str) -> None:
        """Keep the canary of a key that has none."""
        self._connection.execute(insert(canaries).values(key_id=key_id, envelope=envelope))


def _values(credential: SealedCredential) -> dict[str, Any]:
    values = {name: getattr(credential, name) for name in SealedCredential.__slots__}
    return {**values, "sealed_with": credential.sealed_with}
