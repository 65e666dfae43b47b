"""The audit trail's rows: what is asked of their tables and added to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ..errors import TrailBroken
from .records import EndRow, Sought
from .tables import audit_ends, audit_events, audit_keys

_COLUMNS = tuple(column.name for column in audit_events.c)
_INSERT = f"INSERT INTO {audit_events.name} ({', '.join(_COLUMNS)}) VALUES"
_MARKS = {"qmark": "?", "format": "%s", "pyformat": "%s"}
_PAGE = (
    select(audit_events)
    .where(audit_events.c.seq > bindparam("after"))
    .order_by(audit_events.c.seq)
    .limit(bindparam("most"))
)
_ENDS = select(audit_ends.c.name, audit_ends.c.seq, audit_ends.c.mac, audit_ends.c.seal)
_KEY = select(audit_keys.c.envelope).where(audit_keys.c.id == 1)


class AuditRows:
    """The rows of the audit trail, over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_all(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Append rows, each with the table's columns in their order."""
        # Past SQLAlchemy, which would take as long for its dictionaries as the database does.
        mark = _MARKS[self._connection.dialect.paramstyle]
        marks = ", ".join([mark] * len(_COLUMNS))
        try:
            self._connection.exec_driver_sql(f"{_INSERT} ({marks})", list(rows))
        except IntegrityError:
            raise TrailBroken("a row stands behind the end of the audit trail") from None

    def page(self, after: int, most: int) -> Sequence[Sequence[Any]]:
        """Return rows by `seq`, from a place on, each as a tuple of the table's columns."""
        found = self._connection.execute(_PAGE, {"after": after, "most": most})
        return [tuple(row) for row in found]

    def newest(self, sought: Sought, most: int) -> Sequence[Sequence[Any]]:
        """Return rows, the newest first."""
        columns = audit_events.c
        query = select(audit_events).order_by(columns.seq.desc()).limit(most)
        if sought.since is not None:
            query = query.where(columns.at >= sought.since)
        if sought.until is not None:
            query = query.where(columns.at < sought.until)
        if sought.before is not None:
            query = query.where(columns.seq < sought.before)
        for name in ("subject", "event", "address", "target"):
            if (value := getattr(sought, name)) is not None:
                query = query.where(columns[name] == value)
        return [tuple(row) for row in self._connection.execute(query)]

    def last(self) -> int | None:
        """Return the `seq` of the last row."""
        last: int | None = self._connection.execute(select(func.max(audit_events.c.seq))).scalar()
        return last

    def first(self) -> int | None:
        """Return the `seq` of the first row."""
        return self.following(None)

    def following(self, seq: int | None) -> int | None:
        """Return the `seq` of the row after a place."""
        query = select(func.min(audit_events.c.seq))
        if seq is not None:
            query = query.where(audit_events.c.seq > seq)
        found: int | None = self._connection.execute(query).scalar()
        return found

    def mac(self, seq: int) -> Any:
        """Return what stands as the MAC of a row."""
        query = select(audit_events.c.mac).where(audit_events.c.seq == seq)
        return self._connection.execute(query).scalar()

    def delete_up_to(self, seq: int) -> None:
        """Forget the rows up to a place, that one too."""
        self._connection.execute(delete(audit_events).where(audit_events.c.seq <= seq))

    # The ends

    def ends(self) -> dict[str, EndRow]:
        """Return where the trail begins (`tail`) and ends (`head`), as far as that is there."""
        return {name: EndRow(*end) for name, *end in self._connection.execute(_ENDS)}

    def set_end(self, name: str, end: EndRow) -> None:
        """Write an end down, in place of what was."""
        where = audit_ends.c.name == name
        done = self._connection.execute(update(audit_ends).where(where).values(**end._asdict()))
        if done.rowcount == 0:
            self._connection.execute(insert(audit_ends).values(name=name, **end._asdict()))

    # The key

    def key(self) -> str | None:
        """Return the envelope of the key that chains the trail."""
        envelope: str | None = self._connection.execute(_KEY).scalar()
        return envelope

    def add_key(self, envelope: str) -> None:
        """Keep the envelope of a new trail's key."""
        self._connection.execute(insert(audit_keys).values(id=1, envelope=envelope))

    def replace_key(self, read: str, following: str) -> None:
        """Put an envelope in the place of the one that was read, if that is still there."""
        where = (audit_keys.c.id == 1) & (audit_keys.c.envelope == read)
        self._connection.execute(update(audit_keys).where(where).values(envelope=following))
