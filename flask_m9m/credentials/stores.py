"""Credential stores: encrypted credentials in the database, or in this process's memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from ..auth.names import name_of
from ..processes.forking import watch
from ..storage.feed import ChangeFeed
from ..storage.records import Envelope, SealedCredential
from ..storage.timed_changes import change_in_time
from .encryption.cipher import Record

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

T = TypeVar("T")


def bound_to(record: SealedCredential | Envelope) -> Record:
    """Return the associated data that binds an envelope to its record."""
    return Record(record.id, record.type, record.owner, bool(record.resolve))


def row_of(rows: Rows, credential_id: str) -> SealedCredential | None:
    """Find a record by an id from a client, which may have any form."""
    return None if name_of(credential_id) is None else rows.get(credential_id)


class Rows(Protocol):
    """The rows of encrypted credentials and canaries; see `CredentialRows` for the methods."""

    def add_all(self, made: Sequence[SealedCredential]) -> None: ...
    def get(self, credential_id: str) -> SealedCredential | None: ...
    def all(
        self,
        owner: str | None = None,
        type: str | None = None,
        *,
        envelopes: bool = True,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[SealedCredential]: ...
    def count(self, owner: str | None = None, type: str | None = None) -> int: ...
    def replace(self, old: SealedCredential, new: SealedCredential) -> bool: ...
    def delete(self, credential_id: str) -> bool: ...
    def seals(self) -> list[str]: ...
    def sealed_with(self) -> dict[str, int]: ...
    def sealed_by(self, seal: str, after: str, most: int) -> list[Envelope]: ...
    def reseal(self, seal: str, envelopes: Sequence[tuple[Envelope, str]]) -> int: ...
    def canaries(self) -> Mapping[str, str]: ...
    def add_canary(self, key_id: str, envelope: str) -> None: ...


class StoreTransaction(NamedTuple):
    """A transaction that changes stored credentials.

    Attributes:
        rows: the rows of credentials and canaries.
        database: the database's transaction, in which audit events are written too; `None` in
            memory.
        committed: functions to call after the commit; they are not called after a rollback.
    """

    rows: Rows
    database: Transaction | None
    committed: list[Callable[[], None]]


class CredentialStore(Protocol):
    """A store of encrypted credentials, with one writer at a time."""

    def read(self, query: Callable[[Rows], T]) -> T:
        """Call a query with the rows, and return its result.

        Raises:
            DatabaseUnavailable: the database cannot be read.
        """
        ...

    def write(self) -> AbstractContextManager[StoreTransaction]:
        """Open a transaction: its changes are all made, or none.

        Raises:
            DatabaseUnavailable: the database failed; nothing was changed.
        """
        ...

    def change(self, make: Callable[[StoreTransaction], T]) -> T:
        """Make a change in a transaction, for a request that waits for it.

        Raises:
            DatabaseUnavailable: the database failed, or did not answer within two seconds.
        """
        ...


class DatabaseCredentialStore:
    """Stores credentials in the app's database; reading does not create the database."""

    def __init__(self, feed: ChangeFeed) -> None:
        self._feed = feed

    def read(self, query: Callable[[Rows], T]) -> T:
        """Call a query with the rows, and return its result."""
        return self._feed.ask_if_there(
            lambda transaction: query(transaction.credentials), lambda: query(MemoryRows())
        )

    @contextmanager
    def write(self) -> Iterator[StoreTransaction]:
        """Open a transaction."""
        with self._feed.database.write() as transaction:
            yield _transaction_of(transaction)

    def change(self, make: Callable[[StoreTransaction], T]) -> T:
        """Make a change in a transaction, waiting at most two seconds."""
        return change_in_time(self._feed, lambda transaction: make(_transaction_of(transaction)))


def _transaction_of(transaction: Transaction) -> StoreTransaction:
    return StoreTransaction(transaction.credentials, transaction, transaction.committed)


class MemoryCredentialStore:
    """Stores credentials in this process's memory, encrypted; they are lost when it ends."""

    def __init__(self) -> None:
        self._rows = MemoryRows()
        self._lock = threading.RLock()
        watch(self)

    def after_fork(self) -> None:
        """Give a child process a lock of its own."""
        self._lock = threading.RLock()

    def read(self, query: Callable[[Rows], T]) -> T:
        """Call a query with the rows, and return its result."""
        with self._lock:
            return query(self._rows)

    @contextmanager
    def write(self) -> Iterator[StoreTransaction]:
        """Open a transaction."""
        with self._lock:
            rows = self._rows.copy()
            transaction = StoreTransaction(rows, None, [])
            yield transaction
            self._rows = rows
        for call in transaction.committed:
            call()

    def change(self, make: Callable[[StoreTransaction], T]) -> T:
        """Make a change in a transaction."""
        with self.write() as transaction:
            return make(transaction)


class MemoryRows:
    """The rows of encrypted credentials and canaries, in dictionaries."""

    def __init__(self) -> None:
        self._credentials: dict[str, SealedCredential] = {}
        self._canaries: dict[str, str] = {}

    def copy(self) -> MemoryRows:
        """Return a copy that can change without changing the original."""
        rows = MemoryRows()
        rows._credentials, rows._canaries = dict(self._credentials), dict(self._canaries)
        return rows

    def add_all(self, made: Sequence[SealedCredential]) -> None:
        """Add new credentials."""
        self._credentials.update((record.id, record) for record in made)

    def get(self, credential_id: str) -> SealedCredential | None:
        """Find a credential by its id."""
        return self._credentials.get(credential_id)

    def all(
        self,
        owner: str | None = None,
        type: str | None = None,
        *,
        envelopes: bool = True,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[SealedCredential]:
        """Return credentials, the oldest first, of one owner or all and of one type or all."""
        found = [
            record
            for record in self._credentials.values()
            if owner in (None, record.owner) and type in (None, record.type)
        ]
        found.sort(key=lambda record: (record.created_at, record.id))
        return found[offset:] if limit is None else found[offset : offset + limit]

    def count(self, owner: str | None = None, type: str | None = None) -> int:
        """Count the credentials of one owner or all, and of one type or all."""
        return len(self.all(owner, type))

    def replace(self, old: SealedCredential, new: SealedCredential) -> bool:
        """Replace a credential unless its envelope changed; tell whether it was replaced."""
        known = self._credentials.get(old.id)
        if known is None or known.envelope != old.envelope:
            return False
        self._credentials[old.id] = new
        return True

    def delete(self, credential_id: str) -> bool:
        """Delete a credential; tell whether it existed."""
        return self._credentials.pop(credential_id, None) is not None

    def seals(self) -> list[str]:
        """Return the seals in use: the cipher and key id that each envelope begins with."""
        return sorted(self.sealed_with())

    def sealed_with(self) -> dict[str, int]:
        """Count credentials by seal."""
        counts: dict[str, int] = {}
        for record in self._credentials.values():
            counts[record.sealed_with] = counts.get(record.sealed_with, 0) + 1
        return counts

    def sealed_by(self, seal: str, after: str, most: int) -> list[Envelope]:
        """Return the envelopes of one seal, ordered by id, after a given id."""
        found = [
            Envelope(record.id, record.type, record.owner, record.resolve, record.envelope)
            for record in self._credentials.values()
            if record.sealed_with == seal and record.id > after
        ]
        return sorted(found)[:most]

    def reseal(self, seal: str, envelopes: Sequence[tuple[Envelope, str]]) -> int:
        """Replace the envelopes that have not changed since they were read; return how many."""
        replaced = 0
        for old, new in envelopes:
            known = self._credentials.get(old.id)
            if known is not None and known.envelope == old.envelope:
                self._credentials[old.id] = replace(known, envelope=new)
                replaced += 1
        return replaced

    def canaries(self) -> Mapping[str, str]:
        """Return the canaries by key id."""
        return dict(self._canaries)

    def add_canary(self, key_id: str, envelope: str) -> None:
        """Add the canary of a key that has none."""
        self._canaries[key_id] = envelope
