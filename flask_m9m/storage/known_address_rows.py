"""Queries and updates of the table of the addresses from which accounts signed in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from .tables import known_addresses

_MOST = 32  # addresses of one account
_OF_ACCOUNT = select(known_addresses.c.digest, known_addresses.c.seen_at).where(
    known_addresses.c.account == bindparam("account")
)


class KnownAddressRows:
    """Reads and writes the rows of known addresses over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of_account(self, account: bytes) -> dict[bytes, datetime]:
        """Return when an account last signed in from each address, by the addresses' digests."""
        rows = self._connection.execute(_OF_ACCOUNT, {"account": account})
        return {digest: seen_at for digest, seen_at in rows}

    def keep(self, seen: Mapping[bytes, tuple[bytes, datetime]], oldest: datetime) -> None:
        """Keep addresses: the latest 32 of each account.

        Args:
            seen: the account's digest and the time of the sign-in, by the digest of account and
                address.
            oldest: rows of earlier sign-ins are deleted.
        """
        columns = known_addresses.c
        self._connection.execute(delete(known_addresses).where(columns.seen_at < oldest))
        for digest, (account, at) in seen.items():
            renewal = update(known_addresses).where(columns.digest == digest).values(seen_at=at)
            if self._connection.execute(renewal).rowcount == 0:
                row = {"digest": digest, "account": account, "seen_at": at}
                self._connection.execute(insert(known_addresses).values(row))
        for account in {account for account, _ in seen.values()}:
            latest = (
                select(columns.digest)
                .where(columns.account == account)
                .order_by(columns.seen_at.desc())
                .limit(_MOST)
            )
            surplus = (columns.account == account) & columns.digest.not_in(latest)
            self._connection.execute(delete(known_addresses).where(surplus))
