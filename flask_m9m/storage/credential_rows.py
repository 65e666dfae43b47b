"""CredentialRows: queries and changes of the tables of stored credentials and canaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
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

# Statements on the path of requests and rotations are built once.
_BY_ID = select(*_ROW).where(credentials.c.id == bindparam("id"))
_BY_SEAL = (
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
    .where(credentials.c.id == bindparam("key"), credentials.c.envelope == bindparam("old"))
    .values(envelope=bindparam("new"), sealed_with=bindparam("seal"))
)

_ENVELOPE = credentials.c.envelope
_LONGEST_SEAL = len("m9m:f1:01234567:")


def _matches(owner: str | None, type: str | None) -> list[ColumnElement[bool]]:
    wanted = ((credentials.c.owner, owner), (credentials.c.type, type))
    return [column == value for column, value in wanted if value is not None]


class CredentialRows:
    """The rows of credentials and canaries, over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_all(self, made: Sequence[SealedCredential]) -> None:
        """Add new credentials."""
        if made:
            self._connection.execute(insert(credentials), [_values(record) for record in made])

    def get(self, credential_id: str) -> SealedCredential | None:
        """Find a credential by its id."""
        row = self._connection.execute(_BY_ID, {"id": credential_id}).one_or_none()
        return None if row is None else SealedCredential(*row)

    def all(
        self,
        owner: str | None = None,
        type: str | None = None,
        *,
        envelopes: bool = True,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[SealedCredential]:
        """Return credentials, the oldest first.

        Args:
            owner: only the records of this owner.
            type: only the records of this type.
            envelopes: whether to read the encrypted data, which may be long; else it is empty.
            limit: the most records to return.
            offset: how many records to leave out first.
        """
        columns = (
            _ROW
            if envelopes
            else [literal("") if column is _ENVELOPE else column for column in _ROW]
        )
        query = select(*columns).where(*_matches(owner, type))
        query = query.order_by(credentials.c.created_at, credentials.c.id)
        if limit is not None:
            query = query.limit(limit).offset(offset)
        return [SealedCredential(*row) for row in self._connection.execute(query)]

    def count(self, owner: str | None = None, type: str | None = None) -> int:
        """Count the credentials of one owner or all, and of one type or all."""
        query = select(func.count()).select_from(credentials).where(*_matches(owner, type))
        return int(self._connection.execute(query).scalar_one())

    def replace(self, old: SealedCredential, new: SealedCredential) -> bool:
        """Replace a credential by a newer version of itself.

        Returns:
            Whether it was replaced; it is not if its envelope has changed since it was read.
        """
        same = (credentials.c.id == old.id) & (credentials.c.envelope == old.envelope)
        result: CursorResult[Any] = self._connection.execute(
            update(credentials).where(same).values(**_values(new))
        )
        return result.rowcount == 1

    def delete(self, credential_id: str) -> bool:
        """Delete a credential; tell whether it existed."""
        result: CursorResult[Any] = self._connection.execute(
            delete(credentials).where(credentials.c.id == credential_id)
        )
        return result.rowcount == 1

    # Rotation

    def sealed_with(self) -> dict[str, int]:
        """Count credentials by seal: the cipher and key id that an envelope begins with.

        This reads the envelopes and not the column `sealed_with`, which may be wrong: a key that
        an envelope needs must never count as unused.
        """
        beginning = func.substr(credentials.c.envelope, 1, _LONGEST_SEAL)
        counts: dict[str, int] = {}
        query = select(beginning, func.count()).group_by(beginning)
        for text, count in self._connection.execute(query):
            seal = ":".join(text.split(":", 3)[:3])
            counts[seal] = counts.get(seal, 0) + count
        return counts

    def seals(self) -> list[str]:
        """Return the seals in use by the column `sealed_with`, with one index lookup for each."""
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
        """Return a batch of the envelopes of one seal, ordered by id.

        Args:
            seal: the cipher and key id, as in `sealed_with`.
            after: the last id of the batch before; empty for the first batch.
            most: maximum number of envelopes.
        """
        place = {"seal": seal, "after": after, "most": most}
        return [Envelope._make(row) for row in self._connection.execute(_BY_SEAL, place).all()]

    def reseal(self, seal: str, envelopes: Sequence[tuple[Envelope, str]]) -> int:
        """Replace the envelopes that have not changed since they were read; return how many.

        Args:
            seal: the cipher and key id of the new envelopes.
            envelopes: pairs of the envelope that was read and its replacement.
        """
        values = [
            {"key": old.id, "old": old.envelope, "new": new, "seal": seal} for old, new in envelopes
        ]
        result: CursorResult[Any] = self._connection.execute(_RESEAL, values)
        return result.rowcount

    # Canaries

    def canaries(self) -> Mapping[str, str]:
        """Return the canaries by key id."""
        rows = self._connection.execute(select(canaries.c.key_id, canaries.c.envelope))
        return {row[0]: row[1] for row in rows}

    def add_canary(self, key_id: str, envelope: str) -> None:
        """Add the canary of a key that has none."""
        self._connection.execute(insert(canaries).values(key_id=key_id, envelope=envelope))


def _values(credential: SealedCredential) -> dict[str, Any]:
    values = {name: getattr(credential, name) for name in SealedCredential.__slots__}
    return {**values, "sealed_with": credential.sealed_with}
