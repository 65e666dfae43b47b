"""What is asked of the database and changed in it, table by table."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, insert, select

from .audit_rows import AuditRows
from .credential_rows import CredentialRows
from .identity_rows import IdentityRows
from .records import Change
from .tables import changes

_KEPT = timedelta(days=1)  # longer than needed, for clocks that are ahead

# Statements that requests wait for are built once.
_CHANGES_SINCE = (
    select(changes.c.id, changes.c.mark, changes.c.topic, changes.c.name)
    .where(changes.c.id >= bindparam("position"))
    .order_by(changes.c.id)
    .limit(bindparam("most"))
)
_NEWEST_CHANGE = (
    select(changes.c.id, changes.c.mark, changes.c.topic, changes.c.name)
    .order_by(changes.c.id.desc())
    .limit(1)
)


class Transaction:
    """One connection to the database, and what is asked and changed over it.

    Attributes:
        committed: what is called once its changes are there, and not where they are taken back.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.committed: list[Callable[[], None]] = []

    @property
    def identities(self) -> IdentityRows:
        """API keys, users, sessions and revocations."""
        return IdentityRows(self._connection)

    @property
    def credentials(self) -> CredentialRows:
        """Stored credentials."""
        return CredentialRows(self._connection, self)

    @property
    def audit(self) -> AuditRows:
        """The audit trail."""
        return AuditRows(self._connection)

    # The change feed

    def append_change(self, topic: str, name: str, now: datetime) -> None:
        """Append a change to the feed; its id comes under the lock of `Database.write`."""
        row = {"mark": secrets.randbits(63), "topic": topic, "name": name, "changed_at": now}
        made = self._connection.execute(insert(changes).values(row)).inserted_primary_key
        if made is not None and made[0] % 64 == 0:
            # What was forgotten is found missing by whoever has not read it.
            old = (changes.c.changed_at < now - _KEPT) & (changes.c.id < made[0])
            self._connection.execute(delete(changes).where(old))
            self.identities.prune_revocations(now)

    def changes_since(self, position: int, most: int) -> Sequence[Change]:
        """Return the feed from a position on, that one's row first."""
        found = self._connection.execute(_CHANGES_SINCE, {"position": position, "most": most})
        return [Change(*row) for row in found]

    def newest_change(self) -> Change | None:
        """Return the feed's last row."""
        row = self._connection.execute(_NEWEST_CHANGE).one_or_none()
        return None if row is None else Change(*row)
