"""Encrypted columns of an app's own models, under SQLAlchemy or Flask-SQLAlchemy.

    class Account(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        token = db.Column(EncryptedString)

What is kept is an envelope of `m9m.cipher` in a column of type TEXT, NULL for `None`. Its
associated data is `flask-m9m column`, the table's name and the column's, each its length in 4 bytes
(big-endian) and itself, so it opens in no other column. It is not bound to its row: a type sees
values, not rows, and where the database numbers rows there is no primary key yet when a value is
encrypted. Whoever can write to the database can so put one row's envelope into another's. What must
not be swapped belongs into `m9m.credentials`, or is encrypted by `m9m.cipher` with the row's key as
associated data.

This module loads SQLAlchemy; `import flask_m9m` does not load this module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    CursorResult,
    Engine,
    MetaData,
    Select,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    event,
    func,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Null

from .crypto.cipher import Cipher, key_id_of
from .errors import DecryptionFailed, SettingsError
from .state import current_state

if TYPE_CHECKING:
    from sqlalchemy import Dialect

T = TypeVar("T")

_PURPOSE = "flask-m9m column"
_BATCH = 100  # an app's transactions may wait for one of these
_LONGEST_SEAL = len("m9m:f1:01234567")


class NotEncrypted(ValueError, DontWrapMixin):
    """A value that cannot be encrypted was to be kept; nothing was.

    SQLAlchemy does not wrap it: it would show the value among the statement's parameters.
    """


class NotComparable(TypeError):
    """A query compares or orders by encrypted values, in which the database sees no order."""


@dataclass(frozen=True, slots=True)
class RotatedColumn:
    """What came of a column's rotation.

    Attributes:
        column: `table.column`.
        resealed: how many values were sealed anew.
        unreadable: how many do not open; they are as they were.
        keys_in_use: the ids of the keys that values need afterwards, and how many need each; under
            an empty id what is no envelope.
    """

    column: str
    resealed: int
    unreadable: int
    keys_in_use: Mapping[str, int]


class _OnlyWhetherNull(TypeDecorator.Comparator[Any]):
    """Offers `IS NULL` and `IS NOT NULL`, and refuses all else."""

    def operate(self, op: Callable[..., Any], *other: Any, **kwargs: Any) -> ColumnElement[Any]:
        equality = op in (operators.eq, operators.ne, operators.is_, operators.is_not)
        if equality and (isinstance(other[0], Null | None) or self._asks_the_orm(other[0])):
            return super().operate(op, *other, **kwargs)
        raise _refusal(self.type)

    def _asks_the_orm(self, other: Any) -> bool:
        """Tell whether a model's column is held to itself: so bulk updates find what they set."""
        column: Any = self.expr
        both = [getattr(one, "_annotations", {}) for one in (column, other)]
        of_model = any("parententity" in annotations for annotations in both)
        return of_model and column._deannotate() is getattr(other, "_deannotate", object)()

    def reverse_operate(self, op: Callable[..., Any], other: Any, **kwargs: Any) -> Any:
        raise _refusal(self.type)


class _Place:
    """A type's column, the same as no other."""

    __slots__ = ("column",)

    def __init__(self, column: Column[Any]) -> None:
        self.column = column


class _Encrypted(TypeDecorator[T]):
    """A column's encrypted values.

    Args:
        cipher: what encrypts, `m9m.cipher` say; left out, that of the current app.
        bound_to: the table and the column that values are bound to; left out, the column's own
            names. Give the old ones after either is renamed.
        place: where it is the type of a column; set when it becomes that.
    """

    impl = Text
    cache_ok = True  # statements are kept by the parameters below, and so by the column
    comparator_factory = _OnlyWhetherNull

    def __init__(
        self,
        cipher: Cipher | None = None,
        bound_to: tuple[str, str] | None = None,
        place: _Place | None = None,
    ) -> None:
        super().__init__()
        self.cipher = cipher
        self.bound_to = bound_to
        self.place = place

    def __repr__(self) -> str:
        bound_to = "" if self.bound_to is None else f"bound_to={self.bound_to!r}"
        return f"{type(self).__name__}({bound_to})"

    def process_bind_param(self, value: T | None, dialect: Dialect) -> str | None:
        """Encrypt a value.

        Raises:
            NotEncrypted: it is of the wrong type or too long, or there is no key or no app.
        """
        if value is None:
            return None
        try:
            return self.keys().encrypt(self._octets(value), self.associated_data())
        except (TypeError, ValueError, RuntimeError, RecursionError, SettingsError) as error:
            reason = "it is no text" if isinstance(error, UnicodeError) else str(error)
        raise NotEncrypted(f"{self._name()} is not encrypted: {reason}")

    def process_result_value(self, value: Any, dialect: Dialect) -> T | None:
        """Decrypt a value.

        Raises:
            DecryptionFailed: for whatever is wrong with it.
        """
        if value is None:
            return None
        return self._value(self.keys().decrypt(value, self.associated_data()))

    def associated_data(self) -> bytes:
        """Return what its values are bound to.

        Raises:
            RuntimeError: it is the type of no table's column.
        """
        names = self.bound_to
        if names is None:
            column = None if self.place is None else self.place.column
            if column is None or not isinstance(column.table, Table):
                raise RuntimeError("it is the type of no table's column; bound_to is not given")
            names = column.table.name, column.name
        parts = [part.encode() for part in (_PURPOSE, *names)]
        return b"".join(len(part).to_bytes(4) + part for part in parts)

    def keys(self) -> Cipher:
        """Return what encrypts."""
        return self.cipher or current_state(type(self).__name__).cipher

    def _name(self) -> str:
        return type(self).__name__ if self.place is None else str(self.place.column)

    def _octets(self, value: T) -> bytes:
        raise NotImplementedError

    def _value(self, octets: bytes) -> T:
        raise NotImplementedError


class EncryptedString(_Encrypted[str]):
    """A column's texts, encrypted.

    Args:
        cipher: what encrypts, `m9m.cipher` say; left out, that of the current app.
        bound_to: the table and the column that texts are bound to; left out, the column's own
            names. Give the old ones after either is renamed.
    """

    cache_ok = True

    def _octets(self, value: str) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"a text is needed, not {type(value).__name__}")
        return value.encode()

    def _value(self, octets: bytes) -> str:
        return octets.decode()


class EncryptedJSON(_Encrypted[Any]):
    """A column's JSON, encrypted; `None` is NULL.

    A change inside of a value is not seen: assign a new one, or wrap the type in SQLAlchemy's
    `MutableDict.as_mutable`.

    Args:
        cipher: what encrypts, `m9m.cipher` say; left out, that of the current app.
        bound_to: the table and the column that values are bound to; left out, the column's own
            names. Give the old ones after either is renamed.
    """

    cache_ok = True

    def _octets(self, value: Any) -> bytes:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            raise ValueError("it is no JSON") from None
        return text.encode()

    def _value(self, octets: bytes) -> Any:
        return json.loads(octets)


@event.listens_for(_Encrypted, "after_parent_attach", propagate=True)
def _know_column(kind: _Encrypted[Any], column: Any) -> None:
    """Tell a type its column; of one that several columns share, each gets its own."""
    if not isinstance(column, Column):
        return
    known = None if kind.place is None else kind.place.column
    if known is not None and known is not column and known.type is kind:
        column.type = kind = kind.copy()
    kind.place = _Place(column)


def _refusal(kind: object) -> NotComparable:
    return NotComparable(
        f"{type(kind).__name__} cannot be compared or ordered in SQL, as every encryption of a "
        "value is another text: compare in Python, or keep a keyed hash in a column beside it"
    )


def render_item(type_: str, item: object, autogen_context: object) -> str | bool:
    """Have Alembic write encrypted columns as what they are to the database, `sa.Text()`.

    It goes into `env.py`: `context.configure(…, render_item=flask_m9m.columns.render_item)`;
    without it, migrations name these types and need `import flask_m9m.columns`.
    """
    return "sa.Text()" if type_ == "type" and isinstance(item, _Encrypted) else False


# Rotation


def rotate(engine: Engine, metadata: MetaData) -> list[RotatedColumn]:
    """Seal every value of encrypted columns anew under today's key, while the app goes on.

    It walks by primary key, and replaces only what is still what was read, so it undoes no change;
    it can end at any instant and begin again.

    Args:
        engine: the database, `db.engine` say.
        metadata: of the models, `db.metadata` say.

    Raises:
        ValueError: a table with such a column has no primary key; nothing was changed.
    """
    found = [
        _ColumnRotation(engine, column, column.type)
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, _Encrypted)
    ]
    return [one.run() for one in found]


class _ColumnRotation:
    """The rotation of one column."""

    def __init__(self, engine: Engine, column: Column[Any], kind: _Encrypted[Any]) -> None:
        self._engine, self._column, self._kind = engine, column, kind
        self._key = tuple(column.table.primary_key.columns)
        if not self._key:
            raise ValueError(f"{column} cannot be rotated: its table has no primary key")
        self._kept = type_coerce(column, Text)
        self._resealed = self._unreadable = 0
        following = bindparam("m9m_following", type_=Text())
        same = [part == bindparam(f"m9m_{n}", type_=part.type) for n, part in enumerate(self._key)]
        self._change = (
            update(column.table)
            .where(*same, self._kept == bindparam("m9m_before", type_=Text()))
            .values({column: following})
        )

    def run(self) -> RotatedColumn:
        """Seal its values anew."""
        for rows in self._batches():
            changes = [change for row in rows if (change := self._change_of(row)) is not None]
            if changes:
                with self._engine.begin() as connection:
                    result: CursorResult[Any] = connection.execute(self._change, changes)
                    self._resealed += result.rowcount
        in_use = self._keys_in_use()
        return RotatedColumn(str(self._column), self._resealed, self._unreadable, in_use)

    def _batches(self) -> Iterator[Sequence[Sequence[Any]]]:
        sealed = self._kept.like(f"{self._kind.keys().seal}:%")
        query = select(*self._key, self._kept).where(self._kept.is_not(None), ~sealed)
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
        beginning = func.substr(self._kept, 1, _LONGEST_SEAL)
        query = select(beginning, func.count()).where(self._kept.is_not(None)).group_by(beginning)
        found: dict[str, int] = {}
        for seal, count in self._read(query):
            key_id = key_id_of(f"{seal.rstrip(':')}:x") or ""
            found[key_id] = found.get(key_id, 0) + count
        return found
