"""Transaction: a database connection with the rows of each table, and the change feed's rows."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, insert, select

from .audit_rows import AuditRows
from .credential_rows import CredentialRows
from .identity_rows import IdentityRows
from .known_address_rows import KnownAddressRows
from .records import Change
from .tables import changes

_RETENTION = timedelta(days=1)  # longer than needed: another machine's clock may be ahead

# Built once, because requests wait for these statements.
_CHANGES_SINCE = (
    select(changes.c.id, changes.c.mark, changes.c.topic, changes.c.name)
    .where(changes.c.id >= bindparam("position"))
    .order_by(changes.c.id)
    .limit(bindparam("most"))
)
_CHANGED_SINCE = (
    select(changes.c.id)
    .where(
        changes.c.id > bindparam("position"),
        changes.c.topic == bindparam("topic"),
        changes.c.name == bindparam("name"),
    )
    .limit(1)
)
_NEWEST_CHANGE = (
    select(changes.c.id, changes.c.mark, changes.c.topic, changes.c.name)
    .order_by(changes.c.id.desc())
    .limit(1)
)


class Transaction:
    """Reads and writes rows over one database connection.

    Args:
        connection: an open connection; `Database` begins and ends the transaction on it.

    Attributes:
        committed: functions to call after the commit; a rollback discards them.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.committed: list[Callable[[], None]] = []

    @property
    def identities(self) -> IdentityRows:
        """The rows of API keys, users, sessions and revocations."""
        return IdentityRows(self._connection)

    @property
    def credentials(self) -> CredentialRows:
        """The rows of stored credentials."""
        return CredentialRows(self._connection)

    @property
    def audit(self) -> AuditRows:
        """The rows of the audit trail."""
        return AuditRows(self._connection)

    @property
    def known_addresses(self) -> KnownAddressRows:
        """The rows of the addresses from which accounts signed in."""
        return KnownAddressRows(self._connection)

    # The change feed

    def append_change(self, topic: str, name: str, now: datetime) -> None:
        """Append a change to the feed, and now and then delete old rows.

        Call it only within `Database.write`, whose lock keeps the ids in the order of commits.

        Args:
            topic: the kind of record that changed, usually a `Topic`.
            name: the record's id or name.
            now: the current time.
        """
        row = {"mark": secrets.randbits(63), "topic": topic, "name": name, "changed_at": now}
        key = self._connection.execute(insert(changes).values(row)).inserted_primary_key
        if key is not None and key[0] % 64 == 0:
            # A process that has not read a deleted row misses its position and clears its caches.
            old = (changes.c.changed_at < now - _RETENTION) & (changes.c.id < key[0])
            self._connection.execute(delete(changes).where(old))
            self.identities.prune_revocations(now)

    def changes_since(self, position: int, most: int) -> Sequence[Change]:
        """Return at most `most` changes in order of their ids, beginning with the id `position`."""
        rows = self._connection.execute(_CHANGES_SINCE, {"position": position, "most": most})
        return [Change(*row) for row in rows]

    def changed_since(self, position: int, topic: str, name: str) -> bool:
        """Tell whether the feed has a change of a record after the id `position`."""
        query = _CHANGED_SINCE, {"position": position, "topic": topic, "name": name}
        return self._connection.execute(*query).first() is not None

    def newest_change(self) -> Change | None:
        """Return the feed's newest change, or `None` if the feed is empty."""
        row = self._connection.execute(_NEWEST_CHANGE).one_or_none()
        return None if row is None else Change(*row)
