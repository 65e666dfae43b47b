"""Walks through encrypted columns: encrypt every value again, or those that are plain text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    CursorResult,
    Engine,
    MetaData,
    Select,
    Text,
    bindparam,
    func,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)

from ..credentials.encryption.cipher import PREFIXES, key_id_of
from ..errors import DecryptionFailed
from ..extension.model_columns import Progress, RotatedColumn
from .encrypted_types import Encrypted, Envelope

_BATCH = 100  # rows in one transaction, for which the app's transactions may have to wait
_MAX_BYTES = 1 << 20  # of envelopes in one transaction
_LONGEST_SEAL = len("m9m:f1:01234567")


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
    walks = [ColumnWalk(engine, column) for column in encrypted_columns(metadata)]
    return [walk.rotate() for walk in walks]


def encrypt_plain_text(engine: Engine, metadata: MetaData) -> dict[str, int]:
    """Encrypt the values of encrypted columns that are plain text, while the app runs.

    Use it once, after a column of text became an encrypted one. Values that are envelopes do not
    change. It can be interrupted and repeated.

    Args:
        engine: the database's engine, such as `db.engine`.
        metadata: the models' metadata, such as `db.metadata`.

    Returns:
        How many values of each column, by `table.column`, were encrypted.

    Raises:
        ValueError: a table with an encrypted column has no primary key, and nothing was changed; or
            a value of an `EncryptedJSON` is no JSON, and it was not changed.
    """
    walks = [ColumnWalk(engine, column) for column in encrypted_columns(metadata)]
    return {walk.name: walk.encrypt_plain_text() for walk in walks}


def encrypted_columns(metadata: MetaData) -> Iterator[Column[Any]]:
    """Yield the encrypted columns of a metadata's tables."""
    for table in metadata.sorted_tables:
        yield from (column for column in table.columns if isinstance(column.type, Encrypted))


class ColumnWalk:
    """A walk through an encrypted column's values, in batches, while others read and write.

    Args:
        engine: the database's engine.
        column: the column, of an encrypted type.
        progress: called after each batch.
        dry_run: read and decrypt, but change nothing.

    Raises:
        ValueError: the column's table has no primary key.
    """

    def __init__(
        self,
        engine: Engine,
        column: Column[Any],
        progress: Progress | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        self.name = str(column)
        self._engine, self._progress, self._dry_run = engine, progress, dry_run
        self._kind: Encrypted[Any] = column.type  # type: ignore[assignment]
        self._key = tuple(column.table.primary_key.columns)
        if not self._key:
            raise ValueError(f"{column} cannot be rotated: its table needs a primary key")
        self._stored = type_coerce(column, Text)
        self._changed = self._read_rows = 0
        following = bindparam("m9m_following", type_=Envelope())
        same = [part == bindparam(f"m9m_{n}", type_=part.type) for n, part in enumerate(self._key)]
        self._change = (
            update(column.table)
            .where(*same, self._stored == bindparam("m9m_before", type_=Text()))
            .values({column: following})
        )

    def rotate(self) -> RotatedColumn:
        """Encrypt the column's values again under the current key."""
        cipher, bound = self._kind.keys(), self._kind.associated_data()
        unreadable = 0

        def following(before: str) -> str | None:
            nonlocal unreadable
            try:
                return cipher.encrypt(cipher.decrypt(before, bound), bound)
            except DecryptionFailed:
                unreadable += 1
                return None

        self._replace(~self._stored.like(f"{cipher.seal}:%"), following)
        return RotatedColumn(self.name, self._changed, unreadable, self.keys_in_use())

    def encrypt_plain_text(self) -> int:
        """Encrypt the values that are no envelopes; return their number.

        Raises:
            ValueError: a value cannot be one of this column's.
        """
        cipher, bound = self._kind.keys(), self._kind.associated_data()

        def following(before: str) -> str | None:
            if key_id_of(before) is not None:
                return None
            try:
                return cipher.encrypt(self._kind.octets_of_text(before), bound)
            except (ValueError, RecursionError):
                raise ValueError(
                    f"a value of {self.name} is not of its type, so it stays as it is: mend it, "
                    "and run this again"
                ) from None

        envelopes = [self._stored.like(f"{prefix}:________:%") for prefix in PREFIXES]
        self._replace(~or_(*envelopes), following)
        return self._changed

    def keys_in_use(self) -> dict[str, int]:
        """Count the values by key id; an empty id counts those that are no envelopes."""
        beginning = func.substr(self._stored, 1, _LONGEST_SEAL)
        query = select(beginning, func.count()).where(self._stored.is_not(None)).group_by(beginning)
        values_by_key: dict[str, int] = {}
        for seal, count in self._read(query):
            key_id = key_id_of(f"{seal.rstrip(':')}:x") or ""
            values_by_key[key_id] = values_by_key.get(key_id, 0) + count
        return values_by_key

    def _replace(self, chosen: ColumnElement[bool], following: Callable[[str], str | None]) -> None:
        """Replace the chosen values by the following ones, where there is one."""
        chosen = self._stored.is_not(None) & chosen
        [[total]] = self._read(select(func.count()).where(chosen)) if self._progress else [[0]]
        for rows in self._batches(chosen):
            changes = [
                self._change_of(row, value)
                for row in rows
                if (value := following(row[-1])) is not None
            ]
            if self._dry_run:
                self._changed += len(changes)
            else:
                self._write(changes)
            self._read_rows += len(rows)
            if self._progress is not None:
                self._progress(self._read_rows, max(total, self._read_rows))

    def _write(self, changes: Sequence[dict[str, Any]]) -> None:
        for group in _short_groups(changes):
            with self._engine.begin() as connection:
                result: CursorResult[Any] = connection.execute(self._change, group)
                self._changed += result.rowcount

    def _batches(self, chosen: ColumnElement[bool]) -> Iterator[Sequence[Sequence[Any]]]:
        query = select(*self._key, self._stored).where(chosen)
        query = query.order_by(*self._key).limit(_BATCH)
        following = query
        while rows := self._read(following):
            yield rows
            place = tuple_(*self._key) > tuple_(*rows[-1][:-1], types=[k.type for k in self._key])
            following = query.where(place)

    def _read(self, query: Select[Any]) -> Sequence[Sequence[Any]]:
        with self._engine.connect() as connection:
            return connection.execute(query).all()

    def _change_of(self, row: Sequence[Any], following: str) -> dict[str, Any]:
        *key, before = row
        values = {f"m9m_{n}": part for n, part in enumerate(key)}
        return {**values, "m9m_before": before, "m9m_following": following}


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
