"""Rotation of encrypted columns: encrypts every value again under the current key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    CursorResult,
    Engine,
    MetaData,
    Select,
    Text,
    bindparam,
    func,
    select,
    tuple_,
    type_coerce,
    update,
)

from ..credentials.encryption.cipher import key_id_of
from ..errors import DecryptionFailed
from .encrypted_types import Encrypted, Envelope

_BATCH = 100  # rows in one transaction, for which the app's transactions may have to wait
_MAX_BYTES = 1 << 20  # of envelopes in one transaction
_LONGEST_SEAL = len("m9m:f1:01234567")


@dataclass(frozen=True, slots=True)
class RotatedColumn:
    """The result of rotating the encryption key of a column.

    Attributes:
        column: `table.column`.
        resealed: the number of values that were encrypted again under the current key.
        unreadable: the number of values that cannot be decrypted; they were not changed.
        keys_in_use: the number of values under each key id after the rotation; an empty id counts
            the values that are no envelopes.
    """

    column: str
    resealed: int
    unreadable: int
    keys_in_use: Mapping[str, int]


def rotate(engine: Engine, metadata: MetaData) -> list[RotatedColumn]:
    """Encrypt all values of encrypted columns again under the current key, while the app runs.

    Rows are read in order of their primary keys. A value is replaced only if it is still the value
    that was read, so no change of the app is lost. A rotation can be interrupted and repeated.

    Args:
        engine: the database's engine, such as `db.engine`.
        metadata: the models' metadata, such as `db.metadata`.

    Returns:
        The result for each encrypted column.

    Raises:
        ValueError: a table with an encrypted column has no primary key; nothing was changed.
    """
    rotations = [
        _ColumnRotation(engine, column, column.type)
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, Encrypted)
    ]
    return [rotation.run() for rotation in rotations]


class _ColumnRotation:
    """The rotation of a column's encryption key."""

    def __init__(self, engine: Engine, column: Column[Any], kind: Encrypted[Any]) -> None:
        self._engine, self._column, self._kind = engine, column, kind
        self._key = tuple(column.table.primary_key.columns)
        if not self._key:
            raise ValueError(f"{column} cannot be rotated: its table needs a primary key")
        self._stored = type_coerce(column, Text)
        self._resealed = self._unreadable = 0
        following = bindparam("m9m_following", type_=Envelope())
        same = [part == bindparam(f"m9m_{n}", type_=part.type) for n, part in enumerate(self._key)]
        self._change = (
            update(column.table)
            .where(*same, self._stored == bindparam("m9m_before", type_=Text()))
            .values({column: following})
        )

    def run(self) -> RotatedColumn:
        """Encrypt the column's values again under the current key."""
        for rows in self._batches():
            changes = [change for row in rows if (change := self._change_of(row)) is not None]
            for group in _short_groups(changes):
                with self._engine.begin() as connection:
                    result: CursorResult[Any] = connection.execute(self._change, group)
                    self._resealed += result.rowcount
        in_use = self._keys_in_use()
        return RotatedColumn(str(self._column), self._resealed, self._unreadable, in_use)

    def _batches(self) -> Iterator[Sequence[Sequence[Any]]]:
        sealed = self._stored.like(f"{self._kind.keys().seal}:%")
        query = select(*self._key, self._stored).where(self._stored.is_not(None), ~sealed)
        query = query.order_by(*self._key).limit(_BATCH)
        following = query
        while rows := self._read(following):
            yield rows
            place = tuple_(*self._key) > tuple_(*rows[-1][:-1], types=[k.type for k in self._key])
            following = query.where(place)

    def _read(self, query: Select[Any]) -> Sequence[Sequence[Any]]:
        with self._engine.connect() as connection:
            return connection.execute(query).all()

    def _change_of(self, row: Sequence[Any]) -> dict[str, Any] | None:
        *key, before = row
        cipher, bound = self._kind.keys(), self._kind.associated_data()
        try:
            following = cipher.encrypt(cipher.decrypt(before, bound), bound)
        except DecryptionFailed:
            self._unreadable += 1
            return None
        values = {f"m9m_{n}": part for n, part in enumerate(key)}
        return {**values, "m9m_before": before, "m9m_following": following}

    def _keys_in_use(self) -> dict[str, int]:
        beginning = func.substr(self._stored, 1, _LONGEST_SEAL)
        query = select(beginning, func.count()).where(self._stored.is_not(None)).group_by(beginning)
        values_by_key: dict[str, int] = {}
        for seal, count in self._read(query):
            key_id = key_id_of(f"{seal.rstrip(':')}:x") or ""
            values_by_key[key_id] = values_by_key.get(key_id, 0) + count
        return values_by_key


def _short_groups(changes: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Split changes into groups of at most `_MAX_BYTES`, or of a single value."""
    group: list[dict[str, Any]] = []
    length = 0
    for change in changes:
        longer = len(change["m9m_following"])
        if group and length + longer > _MAX_BYTES:
            yield group
            group, length = [], 0
        group.append(change)
        length += longer
    if group:
        yield group
