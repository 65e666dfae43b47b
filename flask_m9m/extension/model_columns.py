"""Encrypted columns of an app's own models, as commands need them: where they are, and their keys.

This module does not import SQLAlchemy. `flask_m9m.columns` registers itself as the finder when the
app's models import it; without that import there are no encrypted columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..errors import Problem

if TYPE_CHECKING:
    from .app_state import AppState

Progress = Callable[[int, int], None]
"""Called with the number of values done and their total."""

NAME_DATABASE = "name its database in the app: m9m.encrypted_columns(engine, metadata)"


@dataclass(frozen=True, slots=True)
class RotatedColumn:
    """The result of rotating the encryption key of a column.

    Attributes:
        column: `table.column`.
        resealed: the number of values that were encrypted again under the current key; in a dry
            run, of those that would be.
        unreadable: the number of values that cannot be decrypted; they were not changed.
        keys_in_use: the number of values under each key id after the rotation; an empty id counts
            the values that are no envelopes.
    """

    column: str
    resealed: int
    unreadable: int
    keys_in_use: Mapping[str, int]


class ModelColumn(Protocol):
    """An encrypted column in its database."""

    @property
    def name(self) -> str:
        """`table.column`."""

    @property
    def listed_keys(self) -> Collection[str]:
        """The ids of the keys that its cipher has."""

    def keys_in_use(self) -> Mapping[str, int]:
        """Count the values by key id; an empty id counts those that are no envelopes.

        Raises:
            DatabaseUnavailable: the column cannot be read.
        """

    def rotate(self, progress: Progress | None = None, *, dry_run: bool = False) -> RotatedColumn:
        """Encrypt the column's values again under the current key.

        Raises:
            DatabaseUnavailable: the column cannot be read or written.
        """

    def encrypt_plain_text(self, progress: Progress | None = None, *, dry_run: bool = False) -> int:
        """Encrypt the values that are no envelopes; return their number.

        Raises:
            ValueError: a value cannot be one of this column's; it was not changed.
            DatabaseUnavailable: the column cannot be read or written.
        """


@dataclass(frozen=True, slots=True)
class ModelColumns:
    """The encrypted columns of an app's models.

    Attributes:
        found: the columns in the databases that are known.
        not_seen: the names of columns whose database is not known.
    """

    found: Sequence[ModelColumn] = ()
    not_seen: Sequence[str] = ()


Finder = Callable[["AppState"], ModelColumns]

_finders: list[Finder] = []


def register_finder(find: Finder) -> None:
    """Register the function that finds an app's encrypted columns, in the app's context."""
    _finders.append(find)


def find_columns(state: AppState) -> ModelColumns:
    """Find the encrypted columns of an app's models.

    Raises:
        DatabaseUnavailable: a database cannot be read.
    """
    with state.app.app_context():
        for find in _finders:
            return find(state)
    return ModelColumns()


def missing_keys(columns: Sequence[ModelColumn]) -> list[Problem]:
    """Describe the keys that values of columns need and that are not listed.

    Raises:
        DatabaseUnavailable: a column cannot be read.
    """
    return [
        Problem(
            "credentials.encryption_key",
            f"{count} values of {column.name} need the key {key_id}, which is not there",
            "list it under credentials.previous_keys",
        )
        for column in columns
        for key_id, count in _unlisted(column)
    ]


def _unlisted(column: ModelColumn) -> Iterator[tuple[str, int]]:
    for key_id, count in sorted(column.keys_in_use().items()):
        if key_id and key_id not in column.listed_keys:
            yield key_id, count
