"""The change feed: how processes learn of each other's changes and invalidate their caches.

Every change appends a row to `m9m_changes` in its own transaction. A process reads new rows at most
once per `propagation`, when a request arrives, and drops changed records from its caches, so that
requests need no queries. These rules make it sound:

- Rows are appended under a lock that all processes share, so that the order of their ids is the
  order of their commits (`Database.write`).
- A query's result enters a cache only if no row of the feed was read since before the query
  (`fill_ticket`, `keep`). Otherwise it may be older than a change that the cache already applied.
- A record that a cache lacks may still exist: the database is asked, unless the cache knows that it
  is complete.
- A position is a row's id and its random mark. If that row is missing (another database, a restore,
  a failover, a pruned feed), every cache is cleared.
- Staleness counts from the start of the last successful read. A request that finds it older than
  `propagation` waits for a read, at most 250 ms. While reads fail, cached records are used for at
  most `max_staleness`; then the answer is 503. A read that hangs is abandoned, its result ignored.
"""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..errors import DatabaseUnavailable
from ..processes.forking import watch
from ..processes.quiet import Quiet
from .engine import BUSY_SECONDS

if TYPE_CHECKING:
    from .database import Database
    from .records import Change
    from .transaction import Transaction

logger = logging.getLogger("flask_m9m")

T = TypeVar("T")

# All times are in seconds.
_PATIENCE = 0.25  # how long a request waits for a read
_OPENING_PATIENCE = 5.0  # for the first read, which connects
_PROBE_PATIENCE = 1.0  # for a read that checks whether the database answers
_QUERY_PATIENCE = 2.0  # for a query of the request itself
_HANG = 2.0  # after which a read is abandoned and another one may begin
_BACKOFF = 0.25  # between a failure and the next attempt
_MOST = 1_000  # changes in one read; if there are more, the caches are cleared
_LOG_INTERVAL = 30.0
_BATCH_INTERVAL = 60.0


class Topic(StrEnum):
    """The kinds of records in the feed: API keys by id, users and revocations by name."""

    API_KEY = "api_key"
    USER = "user"
    REVOCATION = "revocation"


class Cache(Protocol):
    """A cache of records of the database in one process."""

    def drop(self, topic: str, name: str) -> None:
        """Drop the entries that depend on a record that changed."""
        ...

    def clear(self) -> None:
        """Drop all entries."""
        ...


class _Reading:
    """A read of the feed in progress, which several requests may wait for."""

    def __init__(self, started_at: float, generation: int) -> None:
        self.started_at = started_at  # by the feed's clock
        self.waiting_since = time.monotonic()
        self.generation = generation
        self.done = threading.Event()
        self.succeeded = False


class ChangeFeed:
    """Reads the changes of other processes and invalidates this process's caches.

    Args:
        database: the database whose feed is read.
        propagation: seconds after which other processes know of a change.
        max_staleness: seconds for which cached records are used while the database is unreachable.
        clock: returns the seconds of a clock that never goes back.

    Attributes:
        database: the database.
        empty: whether the last read found no database, and so no records.
    """

    def __init__(
        self,
        database: Database,
        *,
        propagation: float,
        max_staleness: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.database = database
        # Keeps what the threads of `change_in_time` need from the caller's.
        self.carry: Callable[[], AbstractContextManager[None]] = nullcontext
        self._propagation = propagation
        self._max_staleness = max_staleness
        self._clock = clock
        self._caches: list[Cache] = []
        self._batches: list[Callable[[], None]] = []
        self._position: tuple[int, int] | None = None
        self._invalidations = 0
        self._generation = self._read_generation = 0
        self._last_read_at = -math.inf
        self._fresh_until = -math.inf
        self._retry_at = -math.inf
        self._quiet = Quiet(_LOG_INTERVAL, clock)
        self._batches_due_at = -math.inf
        self._batches_due = False
        self._reading: _Reading | None = None
        self._lock = threading.RLock()
        self.empty = True
        watch(self)

    def subscribe(self, cache: Cache) -> None:
        """Invalidate a cache's entries when records change."""
        self._caches.append(cache)

    def add_batch(self, batch: Callable[[], None]) -> None:
        """Register a function that writes a batch, for `write_due` and the end of the process."""
        if not self._batches:
            atexit.register(_write_at_exit, weakref.ref(self))
        self._batches.append(batch)

    def after_fork(self) -> None:
        """Abandon the parent's read, and clear caches that the fork may have left half changed."""
        self._lock = threading.RLock()
        self._reading = None
        self._fresh_until = self._retry_at = -math.inf
        self._clear_caches()

    # Requests

    def catch_up(self, patience: float = _OPENING_PATIENCE) -> None:
        """Read new changes, and update `empty`, unless the last read is recent enough.

        It is recent enough if it is not older than `propagation` and this process has not written
        since.

        Args:
            patience: seconds to wait for the first read, which connects; later ones take 250 ms.

        Raises:
            DatabaseUnavailable: the last successful read is older than `max_staleness`.
        """
        if self._clock() < self._fresh_until:
            return
        arrived = self._clock()
        while not self._is_caught_up(arrived):
            reading = self._join_read(arrived)
            if reading is None or not self._wait(reading, patience):
                break
        age = self._clock() - self._last_read_at
        if age > max(self._max_staleness, self._propagation) and arrived > self._last_read_at:
            raise DatabaseUnavailable("its changes could not be read for longer than max_staleness")

    def answers(self) -> bool:
        """Tell whether the database answers now, or will be created by the first write."""
        arrived = self._clock()
        reading = self._reading
        if reading is not None and time.monotonic() - reading.waiting_since > _PATIENCE:
            return False  # another request is already waiting too long
        try:
            self.catch_up(_PROBE_PATIENCE)
            usable = not self.empty or self.database.upgrades_itself
        except DatabaseUnavailable:
            return False
        return usable and self._is_caught_up(arrived)

    def has_no_database(self) -> bool:
        """Tell whether there is no database, so that no query is needed."""
        return self.empty and not self.database.present()

    def fill_ticket(self) -> int:
        """Return a number for `keep`; it grows whenever changes are read from the feed."""
        return self._invalidations

    def keep(self, ticket: int, fill: Callable[[], None]) -> None:
        """Store a query's result in a cache, unless changes were read since before the query.

        Args:
            ticket: the result of `fill_ticket()` before the query.
            fill: stores the result.
        """
        with self._lock:
            if ticket == self._invalidations:
                fill()

    def ask(self, query: Callable[[Transaction], T]) -> T:
        """Run a query and return its result, waiting at most two seconds.

        Raises:
            DatabaseUnavailable: the database does not answer in time, or fails.
        """
        return self.limit_time(lambda: self.database.read(query))

    def ask_if_there(self, query: Callable[[Transaction], T], otherwise: Callable[[], T]) -> T:
        """Run a query as `ask` does; if there is no database, return `otherwise()`."""
        database = self.database
        return self.limit_time(lambda: database.read(query) if database.is_there() else otherwise())

    def limit_time(self, ask: Callable[[], T], seconds: float = _QUERY_PATIENCE) -> T:
        """Call a function that asks a server, and stop waiting after two seconds, or others."""
        if self.database.local:
            return ask()
        if self._clock() < self._retry_at:
            raise DatabaseUnavailable("it did not answer a moment ago")
        answers: list[T] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                answers.append(ask())
            except Exception as error:
                errors.append(error)

        thread = _start(run)
        thread.join(seconds)
        if errors:
            raise errors[0]
        if not answers:
            self._retry_at = self._clock() + _BACKOFF
            raise DatabaseUnavailable(f"it did not answer within {seconds:g} seconds")
        return answers[0]

    @contextmanager
    def write(self, patience: float = BUSY_SECONDS) -> Iterator[Transaction]:
        """Open a transaction for changes; this process's next request then reads the feed.

        Raises:
            DatabaseUnavailable: the database cannot be reached or created; see `Database.write`.
        """
        try:
            with self.database.write(patience) as transaction:
                yield transaction
        finally:  # after an error too: a lost connection may hide a successful commit
            with self._lock:
                self._generation += 1
                self._fresh_until = -math.inf

    # Reads

    def _is_caught_up(self, arrived: float) -> bool:
        if self._clock() < self._fresh_until:
            return True
        return self._last_read_at >= arrived and self._read_generation == self._generation

    def _join_read(self, arrived: float) -> _Reading | None:
        """Return the read in progress, or start one; `None`: no read is needed or allowed now."""
        with self._lock:
            reading = self._reading
            if reading is not None and time.monotonic() - reading.waiting_since < _HANG:
                return reading
            if self._is_caught_up(arrived) or self._clock() < self._retry_at:
                return None  # another thread has just read, or just failed to
            reading = self._reading = _Reading(self._clock(), self._generation)
        if self.database.local:
            self._read(reading)
        else:
            _start(lambda: self._read(reading))
        return reading

    def _wait(self, reading: _Reading, patience: float) -> bool:
        """Wait for a read, unless it already took too long; return whether it succeeded."""
        if self._last_read_at > -math.inf:
            patience = _PATIENCE
        left = reading.waiting_since + patience - time.monotonic()
        return reading.done.wait(max(0.0, left)) and reading.succeeded

    def _read(self, reading: _Reading) -> None:
        found = None
        try:
            found = self._fetch()
        except DatabaseUnavailable as error:
            self._log_error("the database cannot be read: %s", error.reason)
        except Exception as error:
            self._log_error("the database cannot be read: %s", type(error).__name__)
        finally:
            with self._lock:
                if self._reading is reading:
                    self._reading = None
                    if found is None:
                        self._retry_at = self._clock() + _BACKOFF
                    else:
                        self._apply_changes(reading, *found)
            reading.done.set()

    def _fetch(self) -> tuple[bool, Sequence[Change] | None, Change | None]:
        """Return whether there is a database, new changes (`None`: unknown), and the newest row."""
        if not self.database.present():
            if not self.database.upgrades_itself:
                self._log_error("its tables do not exist: %s", "run flask m9m db upgrade")
            return False, None, None
        return True, *self.database.read(self._fetch_changes)

    def _fetch_changes(
        self, transaction: Transaction
    ) -> tuple[Sequence[Change] | None, Change | None]:
        if self._position is not None:
            rows = transaction.changes_since(self._position[0], _MOST)
            if rows and rows[0][:2] == self._position and len(rows) < _MOST:
                return rows[1:], rows[-1]
        return None, transaction.newest_change()

    def _apply_changes(
        self,
        reading: _Reading,
        present: bool,
        new_changes: Sequence[Change] | None,
        newest: Change | None,
    ) -> None:
        position = None if newest is None else (newest.id, newest.mark)
        if new_changes is None and (position, self._position) != (None, None):
            self._clear_caches()
        elif new_changes:
            self._invalidations += 1
            for change in new_changes:
                for cache in self._caches:
                    cache.drop(change.topic, change.name)
        self._position = position
        self.empty = not present
        self._last_read_at, self._read_generation = reading.started_at, reading.generation
        if reading.generation == self._generation:
            self._fresh_until = reading.started_at + self._propagation
        self._batches_due = present and self._clock() >= self._batches_due_at
        reading.succeeded = True

    def _clear_caches(self) -> None:
        self._invalidations += 1
        for cache in self._caches:
            cache.clear()

    # Deferred writes

    def write_due(self) -> None:
        """Write the batches if they are due: once a minute, after a read.

        A request calls it after it has added to a batch, because the next one may come much later.
        """
        if not self._batches_due:
            return
        with self._lock:
            if not self._batches_due:
                return
            self._batches_due = False
            self._batches_due_at = self._clock() + _BATCH_INTERVAL
        if self.database.local:
            self.write_batches()
        else:
            _start(self.write_batches)

    def write_batches(self) -> None:
        """Write all batches; a batch that cannot be written waits for the next time."""
        for write in self._batches:
            try:
                write()
            except DatabaseUnavailable as error:
                self._log_error(
                    "the database cannot be written, so what requests noted is stored later: %s",
                    error.reason,
                )

    def _log_error(self, message: str, reason: str) -> None:
        if self._quiet.record(message):
            logger.error(message, reason)


def _write_at_exit(reference: weakref.ref[ChangeFeed]) -> None:
    feed = reference()
    if feed is not None:
        feed.write_batches()


def _start(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name="m9m-database", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is shutting down
        raise DatabaseUnavailable("no thread can be started to ask it") from None
    return thread
