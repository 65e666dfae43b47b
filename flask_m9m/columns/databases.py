"""Where an app's encrypted columns are: finds them with their databases, for commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Engine, MetaData, Table, inspect
from sqlalchemy.exc import SQLAlchemyError

from ..errors import DatabaseUnavailable
from ..extension.model_columns import ModelColumns, Progress, RotatedColumn
from .encrypted_types import Encrypted, attached_columns
from .rotation import ColumnWalk, encrypted_columns

if TYPE_CHECKING:
    from ..credentials.encryption.cipher import Cipher
    from ..extension.app_state import AppState

Database = tuple[Engine | Callable[[], Engine], MetaData]


class FoundColumn:
    """An encrypted column in its database; make it in the app's context.

    Args:
        engine: the database's engine.
        column: the column, of an encrypted type.
    """

    def __init__(self, engine: Engine, column: Column[Any]) -> None:
        self._engine, self._column = engine, column
        self.name = str(column)
        kind: Any = column.type
        self._cipher: Cipher = kind.keys()

    @cached_property
    def exists(self) -> bool:
        """Whether the database has the column's table; it may not be created yet."""
        table: Any = self._column.table
        if _lacks_file(self._engine):
            return False
        with _failures(self.name):
            return inspect(self._engine).has_table(table.name, schema=table.schema)

    @property
    def listed_keys(self) -> Sequence[str]:
        """The ids of the keys that the column's cipher has."""
        return tuple(self._cipher.keys.ids)

    def keys_in_use(self) -> Mapping[str, int]:
        """Count the values by key id; an empty id counts those that are no envelopes."""
        if not self.exists:
            return {}
        with _failures(self.name):
            return ColumnWalk(self._engine, self._column).keys_in_use()

    def rotate(self, progress: Progress | None = None, *, dry_run: bool = False) -> RotatedColumn:
        """Encrypt the column's values again under the current key."""
        if not self.exists:
            return RotatedColumn(self.name, 0, 0, {})
        with _failures(self.name):
            return ColumnWalk(self._engine, self._column, progress, dry_run=dry_run).rotate()

    def encrypt_plain_text(self, progress: Progress | None = None, *, dry_run: bool = False) -> int:
        """Encrypt the values that are no envelopes; return their number."""
        if not self.exists:
            return 0
        with _failures(self.name):
            walk = ColumnWalk(self._engine, self._column, progress, dry_run=dry_run)
            return walk.encrypt_plain_text()


def find_model_columns(state: AppState) -> ModelColumns:
    """Find the encrypted columns of an app's models, in the app's context.

    Databases are those of `m9m.encrypted_columns` and of Flask-SQLAlchemy. Columns of other
    metadata are looked for in the app's `engine`, if it gave one to `M9M`.
    """
    found: dict[tuple[str, Engine], FoundColumn] = {}
    for given, metadata in (*state.column_databases, *_of_flask_sqlalchemy(state)):
        engine = given() if callable(given) else given
        for column in encrypted_columns(metadata):
            found.setdefault((str(column), engine), FoundColumn(engine, column))
    seen, not_seen = {name for name, _ in found}, set()
    own = state.app_engine
    own = own() if callable(own) else own
    for column in _attached(state):
        name = str(column)
        if name in seen:
            continue
        if own is not None and (candidate := FoundColumn(own, column)).exists:
            found.setdefault((name, own), candidate)
        else:
            not_seen.add(name)
    return ModelColumns(tuple(found.values()), tuple(sorted(not_seen)))


def _attached(state: AppState) -> Iterator[Column[Any]]:
    """Yield the columns of every table that are encrypted under the app's keys, by table."""
    tables = {column.table for column in attached_columns() if isinstance(column.table, Table)}
    for table in sorted(tables, key=str):
        for column in table.columns:
            if isinstance(column.type, Encrypted) and column.type.cipher in (None, state.cipher):
                yield column


def _of_flask_sqlalchemy(state: AppState) -> Iterator[Database]:
    extension: Any = state.app.extensions.get("sqlalchemy")
    metadatas = getattr(extension, "metadatas", None) or {}
    if any(True for metadata in metadatas.values() for _ in encrypted_columns(metadata)):
        engines = extension.engines
        for bind, metadata in metadatas.items():
            if bind in engines:
                yield engines[bind], metadata


def _lacks_file(engine: Engine) -> bool:
    """Tell whether an engine's SQLite file does not exist; connecting would create it."""
    name = engine.url.database if engine.url.get_backend_name() == "sqlite" else None
    if name is None or name in ("", ":memory:") or name.startswith("file:"):
        return False
    return not Path(name).exists()


@contextmanager
def _failures(name: str) -> Iterator[None]:
    """Turn errors of the app's database into ours, without statements and values."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None)
        kind = type(error if cause is None else cause).__name__
        raise DatabaseUnavailable(f"the column {name} cannot be used: {kind}") from None
