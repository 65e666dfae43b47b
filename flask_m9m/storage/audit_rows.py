"""Queries and inserts of the audit trail's tables: events, the trail's ends, and its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from ..errors import TrailBroken
from .records import AuditSearch, EndRow
from .tables import audit_ends, audit_events, audit_keys

_COLUMNS = tuple(column.name for column in audit_events.c)
_INSERT = f"INSERT INTO {audit_events.name} ({', '.join(_COLUMNS)}) VALUES"
_PLACEHOLDERS = {"qmark": "?", "format": "%s", "pyformat": "%s"}
_PAGE = (
    select(audit_events)
    .where(audit_events.c.seq > bindparam("after"))
    .order_by(audit_events.c.seq)
    .limit(bindparam("most"))
)
_ENDS = select(audit_ends.c.name, audit_ends.c.seq, audit_ends.c.mac, audit_ends.c.seal)
_KEY = select(audit_keys.c.envelope).where(audit_keys.c.id == 1)


class AuditRows:
    """Reads and writes the audit trail's rows over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add_all(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Append rows, each a tuple with a value for every column, in the table's order.

        Raises:
            TrailBroken: a row with one of these `seq` exists already.
        """
        # Bypasses SQLAlchemy's insert: its dictionaries cost as much time as the database itself.
        placeholder = _PLACEHOLDERS[self._connection.dialect.paramstyle]
        placeholders = ", ".join([placeholder] * len(_COLUMNS))
        try:
            self._connection.exec_driver_sql(f"{_INSERT} ({placeholders})", list(rows))
        except IntegrityError:
            raise TrailBroken("the audit trail has a row after its recorded end") from None

    def page(self, after: int, most: int) -> Sequence[Sequence[Any]]:
        """Return at most `most` rows after a `seq`, in order, as tuples of the table's columns."""
        rows = self._connection.execute(_PAGE, {"after": after, "most": most})
        return [tuple(row) for row in rows]

    def newest(self, sought: AuditSearch, most: int) -> Sequence[Sequence[Any]]:
        """Return at most `most` rows that match `sought`, the newest first."""
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
        """Return the highest `seq`, or `None` if there are no rows."""
        last: int | None = self._connection.execute(select(func.max(audit_events.c.seq))).scalar()
        return last

    def first(self) -> int | None:
        """Return the lowest `seq`, or `None` if there are no rows."""
        return self.following(None)

    def following(self, seq: int | None) -> int | None:
        """Return the next `seq` after another (`None`: the first), or `None` at the end."""
        query = select(func.min(audit_events.c.seq))
        if seq is not None:
            query = query.where(audit_events.c.seq > seq)
        found: int | None = self._connection.execute(query).scalar()
        return found

    def mac(self, seq: int) -> Any:
        """Return the MAC of a row, or `None`; in a damaged row it may be of any type."""
        query = select(audit_events.c.mac).where(audit_events.c.seq == seq)
        return self._connection.execute(query).scalar()

    def delete_up_to(self, seq: int) -> None:
        """Delete all rows up to and including a `seq`."""
        self._connection.execute(delete(audit_events).where(audit_events.c.seq <= seq))

    # The ends

    def ends(self) -> dict[str, EndRow]:
        """Return the recorded ends of the trail: `tail`, its beginning, and `head`, its end."""
        return {name: EndRow(*end) for name, *end in self._connection.execute(_ENDS)}

    def set_end(self, name: str, end: EndRow) -> None:
        """Store an end (`tail` or `head`), replacing the earlier record of it."""
        where = audit_ends.c.name == name
        result = self._connection.execute(update(audit_ends).where(where).values(**end._asdict()))
        if result.rowcount == 0:
            self._connection.execute(insert(audit_ends).values(name=name, **end._asdict()))

    # The key

    def key(self) -> str | None:
        """Return the encrypted key of the trail's hash chain, or `None`."""
        envelope: str | None = self._connection.execute(_KEY).scalar()
        return envelope

    def add_key(self, envelope: str) -> None:
        """Store the encrypted key of a new trail."""
        self._connection.execute(insert(audit_keys).values(id=1, envelope=envelope))

    def replace_key(self, before: str, following: str) -> None:
        """Replace the trail's encrypted key, unless it changed since it was read."""
        where = (audit_keys.c.id == 1) & (audit_keys.c.envelope == before)
        self._connection.execute(update(audit_keys).where(where).values(envelope=following))
