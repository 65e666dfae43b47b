"""Encrypted columns for an app's own models, with SQLAlchemy or Flask-SQLAlchemy.

    class Account(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        token = db.Column(EncryptedString)

A value is stored as an envelope of `m9m.cipher` in a column of type TEXT; `None` is NULL. The
associated data is `flask-m9m column`, the table's name and the column's name, each preceded by its
length in 4 bytes (big-endian). So an envelope decrypts in no other column.

An envelope is not bound to its row: a column type sees values only, and a primary key that the
database assigns does not exist yet when the value is encrypted. An attacker who can write to the
database can therefore copy an envelope from one row to another. Store values that must not be
swapped in `m9m.credentials`, or encrypt them by `m9m.cipher` with the row's key as associated data.

This module imports SQLAlchemy; `import flask_m9m` does not import this module.
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

from .credentials.encryption.cipher import Cipher, key_id_of
from .errors import DecryptionFailed, SettingsError
from .extension.app_state import current_state

if TYPE_CHECKING:
    from sqlalchemy import Dialect

T = TypeVar("T")

_PURPOSE = "flask-m9m column"
_BATCH = 100  # rows in one transaction, for which the app's transactions may have to wait
_LONGEST_SEAL = len("m9m:f1:01234567")


class NotEncrypted(ValueError, DontWrapMixin):
    """A value cannot be encrypted; nothing was stored.

    SQLAlchemy does not wrap this error, because its message would show the statement's parameters.
    """


class NotComparable(TypeError):
    """A query compares encrypted values or orders by them, which SQL cannot do."""


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


class _OnlyWhetherNull(TypeDecorator.Comparator[Any]):
    """Allows `IS NULL` and `IS NOT NULL`, and refuses every other comparison."""

    def operate(self, op: Callable[..., Any], *other: Any, **kwargs: Any) -> ColumnElement[Any]:
        equality = op in (operators.eq, operators.ne, operators.is_, operators.is_not)
        if equality and (isinstance(other[0], Null | None) or self._is_own_model_column(other[0])):
            return super().operate(op, *other, **kwargs)
        raise _refusal(self.type)

    def _is_own_model_column(self, other: Any) -> bool:
        """Tell whether a model's column is compared with itself, as the ORM's bulk updates do."""
        column: Any = self.expr
        both = [getattr(operand, "_annotations", {}) for operand in (column, other)]
        of_model = any("parententity" in annotations for annotations in both)
        return of_model and column._deannotate() is getattr(other, "_deannotate", object)()

    def reverse_operate(self, op: Callable[..., Any], other: Any, **kwargs: Any) -> Any:
        raise _refusal(self.type)


class _Place:
    """Refers to a type's column; equal only to itself, so that it can be part of a cache key."""

    __slots__ = ("column",)

    def __init__(self, column: Column[Any]) -> None:
        self.column = column


class _Encrypted(TypeDecorator[T]):
    """Base of the column types that encrypt their values.

    Args:
        cipher: the cipher, such as `m9m.cipher`; default: that of the current app.
        bound_to: the names of the table and the column that values are bound to; default: those of
            the column. Give the old names after either was renamed.
        place: the column that this is the type of; set automatically.
    """

    impl = Text
    cache_ok = True  # cache keys contain the parameters below, and so the column
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
            NotEncrypted: the value is of the wrong type or too long, no encryption key is set, or
                there is no current app.
        """
        if value is None:
            return None
        try:
            return self.keys().encrypt(self._octets(value), self.associated_data())
        except (TypeError, ValueError, RuntimeError, RecursionError, SettingsError) as error:
            reason = "it is not valid Unicode" if isinstance(error, UnicodeError) else str(error)
        raise NotEncrypted(f"{self._name()} cannot be encrypted: {reason}")

    def process_result_value(self, value: Any, dialect: Dialect) -> T | None:
        """Decrypt a value.

        Raises:
            DecryptionFailed: the value cannot be decrypted, for any reason.
        """
        if value is None:
            return None
        return self._value(self.keys().decrypt(value, self.associated_data()))

    def associated_data(self) -> bytes:
        """Return the associated data, which binds envelopes to the table and the column.

        Raises:
            RuntimeError: this type belongs to no table's column, and `bound_to` is not given.
        """
        names = self.bound_to
        if names is None:
            column = None if self.place is None else self.place.column
            if column is None or not isinstance(column.table, Table):
                raise RuntimeError("the type belongs to no table's column: give bound_to")
            names = column.table.name, column.name
        parts = [part.encode() for part in (_PURPOSE, *names)]
        return b"".join(len(part).to_bytes(4) + part for part in parts)

    def keys(self) -> Cipher:
        """Return the cipher that was given, or that of the current app."""
        return self.cipher or current_state(type(self).__name__).cipher

    def _name(self) -> str:
        return type(self).__name__ if self.place is None else str(self.place.column)

    def _octets(self, value: T) -> bytes:
        raise NotImplementedError

    def _value(self, octets: bytes) -> T:
        raise NotImplementedError


class EncryptedString(_Encrypted[str]):
    """A column of encrypted texts.

    Args:
        cipher: the cipher, such as `m9m.cipher`; default: that of the current app.
        bound_to: the names of the table and the column that texts are bound to; default: those of
            the column. Give the old names after either was renamed.
    """

    cache_ok = True

    def _octets(self, value: str) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"the value must be a str, found {type(value).__name__}")
        return value.encode()

    def _value(self, octets: bytes) -> str:
        return octets.decode()


class EncryptedJSON(_Encrypted[Any]):
    """A column of encrypted JSON values; `None` is NULL.

    SQLAlchemy does not notice a change inside a value: assign a new value, or wrap the type in
    SQLAlchemy's `MutableDict.as_mutable`.

    Args:
        cipher: the cipher, such as `m9m.cipher`; default: that of the current app.
        bound_to: the names of the table and the column that values are bound to; default: those of
            the column. Give the old names after either was renamed.
    """

    cache_ok = True

    def _octets(self, value: Any) -> bytes:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError):
            raise ValueError("the value must be JSON, without NaN or infinity") from None
        return text.encode()

    def _value(self, octets: bytes) -> Any:
        return json.loads(octets)


@event.listens_for(_Encrypted, "after_parent_attach", propagate=True)
def _set_place(kind: _Encrypted[Any], column: Any) -> None:
    """Set a type's column; a type that several columns share is copied for each of them."""
    if not isinstance(column, Column):
        return
    known = None if kind.place is None else kind.place.column
    if known is not None and known is not column and known.type is kind:
        column.type = kind = kind.copy()
    kind.place = _Place(column)


def _refusal(kind: object) -> NotComparable:
    return NotComparable(
        f"{type(kind).__name__} cannot be compared or ordered in SQL, because each encryption of a "
        "value gives another text: compare in Python, or store a keyed hash in another column"
    )


def render_item(type_: str, item: object, autogen_context: object) -> str | bool:
    """Render encrypted columns in Alembic migrations as `sa.Text()`, their type in the database.

    Use it in `env.py`: `context.configure(…, render_item=flask_m9m.columns.render_item)`. Without
    it, migrations name the types of this module and need `import flask_m9m.columns`.
    """
    return "sa.Text()" if type_ == "type" and isinstance(item, _Encrypted) else False


# Rotation


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
        if isinstance(column.type, _Encrypted)
    ]
    return [rotation.run() for rotation in rotations]


class _ColumnRotation:
    """The rotation of a column's encryption key."""

    def __init__(self, engine: Engine, column: Column[Any], kind: _Encrypted[Any]) -> None:
        self._engine, self._column, self._kind = engine, column, kind
        self._key = tuple(column.table.primary_key.columns)
        if not self._key:
            raise ValueError(f"{column} cannot be rotated: its table needs a primary key")
        self._stored = type_coerce(column, Text)
        self._resealed = self._unreadable = 0
        following = bindparam("m9m_following", type_=Text())
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
            if changes:
                with self._engine.begin() as connection:
                    result: CursorResult[Any] = connection.execute(self._change, changes)
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
