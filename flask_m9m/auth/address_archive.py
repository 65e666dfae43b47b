"""AddressArchive: known addresses in the database, for other machines and after a restart.

Nothing is kept where there is no database, or no secret to hash with: what an address is must not
be read from a copy of the table. A row has two hashes and a time:

    digest   HMAC-SHA256(secret, "m9m:known-address:" account " " address)
    account  HMAC-SHA256(secret, "m9m:known-address:" account)

`account` is the account's key in the counters of failed attempts. After a change of the secret,
an address is unknown until the next sign-in.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from ..errors import DatabaseUnavailable
from ..processes.bounded_cache import BoundedCache
from ..processes.forking import fork_safe_lock
from ..storage.feed import ChangeFeed
from ..storage.records import moment

_READ_AGAIN_AFTER = 10.0  # seconds
_WRITE_AFTER = 60.0  # seconds
_REMEMBERED = 1_024
_MOST_WAITING = 1_024


class AddressArchive:
    """Keeps known addresses in the database.

    Args:
        feed: the change feed of the app's database.
        secret: hashes the addresses; the same on all machines. Nothing is kept if it is empty.
        lifetime: seconds for which an address is kept.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        feed: ChangeFeed,
        secret: bytes,
        lifetime: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._feed = feed
        self._secret = secret
        self._lifetime = lifetime
        self._clock = clock
        self._read: BoundedCache[bytes, tuple[float, dict[bytes, datetime]]]
        self._read = BoundedCache(_REMEMBERED)
        self._written_at = -_WRITE_AFTER
        self._lock = fork_safe_lock()
        self._waiting: dict[bytes, tuple[bytes, float]] = {}
        if secret:
            feed.add_batch(self._write)

    def find(self, account: str, address: str) -> float | None:
        """Return when an account last signed in from an address, or `None`.

        The addresses of an account are read together, by one query in ten seconds, so that attempts
        from many addresses at a locked account cost no more than those from one.
        """
        if not self._secret:
            return None
        read = self._addresses(self._hash(account))
        seen_at = read.get(self._hash(f"{account} {address}"))
        return None if seen_at is None else seen_at.timestamp()

    def _addresses(self, account: bytes) -> dict[bytes, datetime]:
        now, known = self._clock(), self._read.find(account)
        if known is not None and 0 <= now - known[0] < _READ_AGAIN_AFTER:
            return known[1]
        try:
            found: dict[bytes, datetime] = self._feed.ask_if_there(
                lambda transaction: transaction.known_addresses.of_account(account), dict
            )
        except DatabaseUnavailable:
            found = {}
        self._read.keep(account, (now, found))
        return found

    def keep(self, account: str, address: str) -> None:
        """Note a sign-in; it is written at once, or with the next ones within the same minute."""
        if not self._secret or self._feed.empty:
            return
        now = self._clock()
        with self._lock:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting[self._hash(f"{account} {address}")] = self._hash(account), now
            if 0 <= now - self._written_at < _WRITE_AFTER:
                return
            self._written_at = now
        if self._feed.database.local:
            self._write_now()
        else:  # no sign-in waits for a server
            with suppress(RuntimeError):  # the interpreter is shutting down: the batch follows
                threading.Thread(target=self._write_now, name="m9m-database", daemon=True).start()

    def _write_now(self) -> None:
        with suppress(DatabaseUnavailable):  # the feed's next batch tries again, and logs it
            self._write()

    def _write(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        try:
            seen = {digest: (account, moment(at)) for digest, (account, at) in waiting.items()}
            oldest = moment(self._clock() - self._lifetime)
            with self._feed.database.write(patience=0.05) as transaction:
                transaction.known_addresses.keep(seen, oldest)
        except BaseException:
            with self._lock:
                self._waiting = {**waiting, **self._waiting}
            raise

    def _hash(self, text: str) -> bytes:
        return hmac.digest(self._secret, f"m9m:known-address:{text}".encode(), "sha256")
