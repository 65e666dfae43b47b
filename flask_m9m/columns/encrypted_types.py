"""Column types that encrypt: their values, their cipher, and the comparisons they allow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from sqlalchemy import (
    Column,
    ColumnElement,
    Table,
    Text,
    TypeDecorator,
    event,
)
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import Null

from ..credentials.encryption.cipher import Cipher
from ..errors import SettingsError
from ..extension.app_state import current_state

if TYPE_CHECKING:
    from sqlalchemy import Dialect

T = TypeVar("T")

_PURPOSE = "flask-m9m column"


class NotEncrypted(ValueError, DontWrapMixin):
    """A value cannot be encrypted; nothing was stored.

    SQLAlchemy does not wrap this error, because its message would show the statement's parameters.
    """


class NotComparable(TypeError):
    """A query compares encrypted values or orders by them, which SQL cannot do."""


class _OnlyWhetherNull(TypeDecorator.Comparator[Any]):
    """Allows `IS NULL` and `IS NOT NULL`, and refuses every other comparison."""

    def operate(self, op: Callable[..., Any], *other: Any, **kwargs: Any) -> ColumnElement[Any]:
        equality = op in (operators.eq, operators.ne, operators.is_, operators.is_not)
        if equality and (isinstance(other[0], Null | None) or self._is_own_model_column(other[0])):
            return super().operate(op, *other, **kwargs)
        raise refusal(self.type)

    def _is_own_model_column(self, other: Any) -> bool:
        """Tell whether a model's column is compared with itself, as the ORM's bulk updates do."""
        column: Any = self.expr
        both = [getattr(operand, "_annotations", {}) for operand in (column, other)]
        of_model = any("parententity" in annotations for annotations in both)
        return of_model and column._deannotate() is getattr(other, "_deannotate", object)()

    def reverse_operate(self, op: Callable[..., Any], other: Any, **kwargs: Any) -> Any:
        raise refusal(self.type)


class Envelope(Text):
    """The type of an envelope that is stored as it is."""


class _Place:
    """Refers to a type's column; equal only to itself, so that it can be part of a cache key."""

    __slots__ = ("__weakref__", "column")

    def __init__(self, column: Column[Any]) -> None:
        self.column = column
        _places.add(self)


_places: WeakSet[_Place] = WeakSet()


def attached_columns() -> list[Column[Any]]:
    """Return every column of this process that has an encrypted type."""
    return [place.column for place in _places]


class Encrypted(TypeDecorator[T]):
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

    def octets_of_text(self, text: str) -> bytes:
        """Return the octets to encrypt for a value that a database keeps as plain text.

        Raises:
            ValueError: the text cannot be a value of this type.
        """
        return self._octets(self._value(text.encode()))

    def _name(self) -> str:
        return type(self).__name__ if self.place is None else str(self.place.column)

    def _octets(self, value: T) -> bytes:
        raise NotImplementedError

    def _value(self, octets: bytes) -> T:
        raise NotImplementedError


class EncryptedString(Encrypted[str]):
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


class EncryptedJSON(Encrypted[Any]):
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


@event.listens_for(Encrypted, "after_parent_attach", propagate=True)
def _set_place(kind: Encrypted[Any], column: Any) -> None:
    """Set a type's column; a type that several columns share is copied for each of them."""
    if not isinstance(column, Column):
        return
    known = None if kind.place is None else kind.place.column
    if known is not None and known is not column and known.type is kind:
        column.type = kind = kind.copy()
    kind.place = _Place(column)


def refusal(kind: object) -> NotComparable:
    """Return the error about a comparison of encrypted values."""
    return NotComparable(
        f"{type(kind).__name__} cannot be compared or ordered in SQL, because each encryption of a "
        "value gives another text: compare in Python, or store a keyed hash in another column"
    )


def render_item(type_: str, item: object, autogen_context: object) -> str | bool:
    """Render encrypted columns in Alembic migrations as `sa.Text()`, their type in the database.

    Use it in `env.py`: `context.configure(…, render_item=flask_m9m.columns.render_item)`. Without
    it, migrations name the types of this module and need `import flask_m9m.columns`.
    """
    return "sa.Text()" if type_ == "type" and isinstance(item, Encrypted) else False
