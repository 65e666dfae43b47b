"""Where credentials are kept: in the database, or in this process's memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from ..auth.names import name_of
from ..crypto.cipher import Record
from ..processes.forking import watch
from ..storage import ChangeFeed, Envelope, SealedCredential

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

T = TypeVar("T")


def bound_to(record: SealedCredential | Envelope) -> Record:
    """Return what a record's envelope is bound to."""
    return Record(record.id, record.type, record.owner, bool(record.resolve))


def row_of(rows: Rows, credential_id: str) -> SealedCredential | None:
    """Return a record by whatever came as its id."""
    return None if name_of(credential_id) is None else rows.get(credential_id)


class Rows(Protocol):
    """What is asked of sealed credentials, and changed in them."""

    def add_all(self, made: Sequence[SealedCredential]) -> None: ...
    def get(self, credential_id: str) -> SealedCredential | None: ...
    def all(
        self, owner: str | None = None, type: str | None = None, *, envelopes: bool = True
    ) -> list[SealedCredential]: ...
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
        rows: the rows that it changes.
        database: the database's transaction, which the audit events join; `None` in memory.
        committed: callbacks, called after the commit; not called after a rollback.
    """

    rows: Rows
    database: Transaction | None
    committed: list[Callable[[], None]]


class CredentialStore(Protocol):
    """Gives access to the rows, to one who writes at a time."""

    def read(self, query: Callable[[Rows], T]) -> T:
        """Return what a query finds.

        Raises:
            DatabaseUnavailable: it cannot be told.
        """
        ...

    def write(self) -> AbstractContextManager[StoreTransaction]:
        """Open a transaction that makes changes: all of them, or none.

        Raises:
            DatabaseUnavailable: nothing was changed.
        """
        ...


class DatabaseCredentialStore:
    """Keeps credentials in the app's database; reading makes none."""

    def __init__(self, feed: ChangeFeed) -> None:
        self._feed = feed

    def read(self, query: Callable[[Rows], T]) -> T:
        """Return what a query finds."""
        return self._feed.ask_if_there(
            lambda transaction: query(transaction.credentials), lambda: query(MemoryRows())
        )

    @contextmanager
    def write(self) -> Iterator[StoreTransaction]:
        """Open a transaction that makes changes."""
        with self._feed.database.write() as transaction:
            yield StoreTransaction(transaction.credentials, transaction, transaction.committed)


class MemoryCredentialStore:
    """Keeps credentials in memory, encrypted all the same; they are gone with the process."""

    def __init__(self) -> None:
        self._rows = MemoryRows()
        self._lock = threading.RLock()
        watch(self)

    def after_fork(self) -> None:
        """Let the child's threads take turns of their own."""
        self._lock = threading.RLock()

    def read(self, query: Callable[[Rows], T]) -> T:
        """Return what a query finds."""
        with self._lock:
            return query(self._rows)

    @contextmanager
    def write(self) -> Iterator[StoreTransaction]:
        """Open a transaction that makes changes."""
        with self._lock:
            rows = self._rows.copy()
            transaction = StoreTransaction(rows, None, [])
            yield transaction
            self._rows = rows
        for call in transaction.committed:
            call()


class MemoryRows:
    """Sealed credentials and canaries in dictionaries."""

    def __init__(self) -> None:
        self._credentials: dict[str, SealedCredential] = {}
        self._canaries: dict[str, str] = {}

    def copy(self) -> MemoryRows:
        """Return a copy, in which changes leave this one as it is."""
        made = MemoryRows()
        made._credentials, made._canaries = dict(self._credentials), dict(self._canaries)
        return made

    def add_all(self, made: Sequence[SealedCredential]) -> None:
        """Keep new credentials."""
        self._credentials.update((one.id, one) for one in made)

    def get(self, credential_id: str) -> SealedCredential | None:
        """Return a credential by its id."""
        return self._credentials.get(credential_id)

    def all(
        self, owner: str | None = None, type: str | None = None, *, envelopes: bool = True
    ) -> list[SealedCredential]:
        """Return credentials, the oldest first."""
        found = [
            one
            for one in self._credentials.values()
            if owner in (None, one.owner) and type in (None, one.type)
        ]
        return sorted(found, key=lambda one: (one.created_at, one.id))

    def replace(self, old: SealedCredential, new: SealedCredential) -> bool:
        """Put a credential in the place of an older state of itself, if that is still there."""
        known = self._credentials.get(old.id)
        if known is None or known.envelope != old.envelope:
            return False
        self._credentials[old.id] = new
        return True

    def delete(self, credential_id: str) -> bool:
        """Forget a credential; tell whether there was one."""
        return self._credentials.pop(credential_id, None) is not None

    def seals(self) -> list[str]:
        """Return with what credentials are sealed."""
        return sorted(self.sealed_with())

    def sealed_with(self) -> dict[str, int]:
        """Return with what credentials are sealed, and how many with each."""
        found: dict[str, int] = {}
        for one in self._credentials.values():
            found[one.sealed_with] = found.get(one.sealed_with, 0) + 1
        return found

    def sealed_by(self, seal: str, after: str, most: int) -> list[Envelope]:
        """Return envelopes of one seal by id, from a place on."""
        found = [
            Envelope(one.id, one.type, one.owner, one.resolve, one.envelope)
            for one in self._credentials.values()
            if one.sealed_with == seal and one.id > after
        ]
        return sorted(found)[:most]

    def reseal(self, seal: str, envelopes: Sequence[tuple[Envelope, str]]) -> int:
        """Replace envelopes that are still the ones that were read; return how many were."""
        done = 0
        for read, following in envelopes:
            known = self._credentials.get(read.id)
            if known is not None and known.envelope == read.envelope:
                self._credentials[read.id] = replace(known, envelope=following)
                done += 1
        return done

    def canaries(self) -> Mapping[str, str]:
        """Return the canary of each key by its id."""
        return dict(self._canaries)

    def add_canary(self, key_id: str, envelope: str) -> None:
        """Keep the canary of a key that has none."""
        self._canaries[key_id] = envelope
