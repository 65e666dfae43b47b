"""The change feed: how each process learns what others changed, without a query per request.

Every change appends a row to `m9m_changes` in its own transaction. A process reads what is new at
most once per `propagation`, when a request comes, and drops from its caches what changed. These
rules make it sound:

- Rows are appended under a lock of all processes, so that the order of their ids is the order of
  their commits (`Database.write`).
- What a cache is filled with counts only if nothing was read from the feed since before its query
  (`noted`, `keep`): it may be older than a change that was dropped from the cache meanwhile.
- What a cache lacks says nothing; it is asked for, or the cache knows that it is complete.
- A position is a row's id and its random mark. Where that row is not found any more (another
  database, a restore, a failover, a feed that was pruned), every cache is emptied.
- Staleness counts from the start of the last good read. A request that finds it older than
  `propagation` waits for a read, at most 250 ms; while none succeeds, what is known counts for at
  most `max_staleness`, then the answer is 503. A read that hangs is given up, and counts for
  nothing should it come to an end.
"""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeVar

from .. import forking
from ..errors import DatabaseUnavailable

if TYPE_CHECKING:
    from .database import Database
    from .records import Change
    from .transaction import Transaction

logger = logging.getLogger("flask_m9m")

T = TypeVar("T")

_PATIENCE = 0.25  # seconds that a request waits for a read
_OPENING = 5.0  # and for the first one, which connects
_PROBING = 1.0  # and whoever only wants to know whether the database answers
_QUERY_PATIENCE = 2.0  # and for a query of its own
_GIVEN_UP = 2.0  # seconds after which another read begins beside one that hangs
_BACKOFF = 0.25  # seconds between failures
_MOST = 1_000  # changes that are taken one by one
_LOG_INTERVAL = 30.0
_BATCH_INTERVAL = 60.0


class Topic(StrEnum):
    """What changes are about: a key by its id, a user or a revocation by its name."""

    API_KEY = "api_key"
    USER = "user"
    REVOCATION = "revocation"


class Cache(Protocol):
    """What a process remembers of the database."""

    def drop(self, topic: str, name: str) -> None:
        """Forget what depends on something that changed."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


class _Reading:
    """One read of the feed, which several requests may wait for."""

    def __init__(self, begun: float, generation: int) -> None:
        self.begun = begun
        self.since = time.monotonic()
        self.generation = generation
        self.done = threading.Event()
        self.good = False


class ChangeFeed:
    """Keeps a process's caches as new as the settings demand.

    Args:
        database: whose changes are read; also an attribute.
        propagation: seconds after which a change is known.
        max_staleness: seconds for which what is known counts while the database is away.
        clock: seconds of a clock that never steps back.
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
        self._propagation = propagation
        self._max_staleness = max_staleness
        self._clock = clock
        self._caches: list[Cache] = []
        self._batches: list[Callable[[], None]] = []
        self._position: tuple[int, int] | None = None
        self._moves = 0
        self._generation = self._read_generation = 0
        self._read_since = -math.inf
        self._fresh_until = -math.inf
        self._retry_at = -math.inf
        self._logged_at: dict[str, float] = {}
        self._batch_due = -math.inf
        self._due = False
        self._reading: _Reading | None = None
        self._lock = threading.RLock()
        self.empty = True
        forking.watch(self)

    def subscribe(self, cache: Cache) -> None:
        """Have a cache told of changes."""
        self._caches.append(cache)

    def write_with(self, batch: Callable[[], None]) -> None:
        """Have a batch written: with `write_due`, and when the process ends."""
        if not self._batches:
            atexit.register(_write_last, weakref.ref(self))
        self._batches.append(batch)

    def after_fork(self) -> None:
        """Leave the parent's reads to it; a cache may have been in the middle of a change."""
        self._lock = threading.RLock()
        self._reading = None
        self._fresh_until = self._retry_at = -math.inf
        self._clear()

    # Requests

    def catch_up(self, patience: float = _OPENING) -> None:
        """See to it that what the caches know is new enough to count.

        Afterwards `empty` tells whether there is no database, and so nothing to know.

        Args:
            patience: seconds to wait for the first read, which connects; others take 250 ms.

        Raises:
            DatabaseUnavailable: it is older than `max_staleness`.
        """
        if self._clock() < self._fresh_until:
            return
        arrived = self._clock()
        while not self._is_caught_up(arrived):
            reading = self._join(arrived)
            if reading is None or not self._wait(reading, patience):
                break
        age = self._clock() - self._read_since
        if age > max(self._max_staleness, self._propagation) and arrived > self._read_since:
            raise DatabaseUnavailable("it was not read for too long")

    def answers(self) -> bool:
        """Tell whether the database answers now, or will be made when it is first written to."""
        arrived = self._clock()
        reading = self._reading
        if reading is not None and time.monotonic() - reading.since > _PATIENCE:
            return False  # somebody is waiting for an answer already
        try:
            self.catch_up(_PROBING)
            made = not self.empty or self.database.makes_itself
        except DatabaseUnavailable:
            return False
        return made and self._is_caught_up(arrived)

    def has_nothing(self) -> bool:
        """Tell whether there is no database, so that there is nobody to ask."""
        return self.empty and not self.database.present()

    def noted(self) -> int:
        """Return what tells `keep` whether something was read from the feed since."""
        return self._moves

    def keep(self, noted: int, fill: Callable[[], None]) -> None:
        """Fill a cache with what a query found, unless something changed since `noted`."""
        with self._lock:
            if noted == self._moves:
                fill()

    def ask(self, query: Callable[[Transaction], T]) -> T:
        """Return what a query finds; a database that does not answer keeps nobody waiting.

        Raises:
            DatabaseUnavailable: it does not answer.
        """
        return self._in_time(lambda: self.database.read(query))

    def ask_if_there(self, query: Callable[[Transaction], T], otherwise: Callable[[], T]) -> T:
        """Return what a query finds, or something else where there is no database; as `ask`."""
        database = self.database
        return self._in_time(lambda: database.read(query) if database.present() else otherwise())

    def _in_time(self, ask: Callable[[], T]) -> T:
        if self.database.local:
            return ask()
        if self._clock() < self._retry_at:
            raise DatabaseUnavailable("it does not answer")
        answers: list[T] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                answers.append(ask())
            except Exception as error:
                errors.append(error)

        thread = _start(run)
        thread.join(_QUERY_PATIENCE)
        if errors:
            raise errors[0]
        if not answers:
            self._retry_at = self._clock() + _BACKOFF
            raise DatabaseUnavailable("it does not answer")
        return answers[0]

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Open a transaction that makes changes; the next request here reads the feed.

        Raises:
            DatabaseUnavailable: as `Database.write` does.
        """
        try:
            with self.database.write() as transaction:
                yield transaction
        finally:  # a commit whose answer was lost may have been one
            with self._lock:
                self._generation += 1
                self._fresh_until = -math.inf

    # Reads

    def _is_caught_up(self, arrived: float) -> bool:
        if self._clock() < self._fresh_until:
            return True
        return self._read_since >= arrived and self._read_generation == self._generation

    def _join(self, arrived: float) -> _Reading | None:
        """Return the read to wait for, beginning one where there is none; `None`: not now."""
        with self._lock:
            reading = self._reading
            if reading is not None and time.monotonic() - reading.since < _GIVEN_UP:
                return reading
            if self._is_caught_up(arrived) or self._clock() < self._retry_at:
                return None  # somebody else has read meanwhile, or just failed to
            reading = self._reading = _Reading(self._clock(), self._generation)
        if self.database.local:
            self._read(reading)
        else:
            _start(lambda: self._read(reading))
        return reading

    def _wait(self, reading: _Reading, patience: float) -> bool:
        """Wait for a read, unless it took too long already; tell whether it was good."""
        if self._read_since > -math.inf:
            patience = _PATIENCE
        left = reading.since + patience - time.monotonic()
        return reading.done.wait(max(0.0, left)) and reading.good

    def _read(self, reading: _Reading) -> None:
        found = None
        try:
            found = self._fetch()
        except DatabaseUnavailable as error:
            self._log("the database cannot be read: %s", error.reason)
        except Exception as error:
            self._log("the database cannot be read: %s", type(error).__name__)
        finally:
            with self._lock:
                if self._reading is reading:
                    self._reading = None
                    if found is None:
                        self._retry_at = self._clock() + _BACKOFF
                    else:
                        self._apply(reading, *found)
            reading.done.set()

    def _fetch(self) -> tuple[bool, Sequence[Change] | None, Change | None]:
        """Return whether there is a database, what is new, if that is known, and the last row."""
        if not self.database.present():
            return False, None, None
        return True, *self.database.read(self._fetch_with)

    def _fetch_with(
        self, transaction: Transaction
    ) -> tuple[Sequence[Change] | None, Change | None]:
        if self._position is not None:
            found = transaction.changes_since(self._position[0], _MOST)
            if found and found[0][:2] == self._position and len(found) < _MOST:
                return found[1:], found[-1]
        return None, transaction.newest_change()

    def _apply(
        self,
        reading: _Reading,
        present: bool,
        news: Sequence[Change] | None,
        newest: Change | None,
    ) -> None:
        position = None if newest is None else (newest.id, newest.mark)
        if news is None and (position, self._position) != (None, None):
            self._clear()
        elif news:
            self._moves += 1
            for change in news:
                for cache in self._caches:
                    cache.drop(change.topic, change.name)
        self._position = position
        self.empty = not present
        self._read_since, self._read_generation = reading.begun, reading.generation
        if reading.generation == self._generation:
            self._fresh_until = reading.begun + self._propagation
        self._due = present and self._clock() >= self._batch_due
        reading.good = True

    def _clear(self) -> None:
        self._moves += 1
        for cache in self._caches:
            cache.clear()

    # What is put off

    def write_due(self) -> None:
        """Write what was put off, after a read and once a minute.

        A request calls it when it has noted what it adds: the next one may be long in coming.
        """
        if not self._due:
            return
        with self._lock:
            if not self._due:
                return
            self._due = False
            self._batch_due = self._clock() + _BATCH_INTERVAL
        if self.database.local:
            self.write_batches()
        else:
            _start(self.write_batches)

    def write_batches(self) -> None:
        """Write what was put off; what cannot be written waits for the next time."""
        for write in self._batches:
            try:
                write()
            except DatabaseUnavailable as error:
                self._log("the database cannot be written, uses of API keys wait: %s", error.reason)

    def _log(self, message: str, reason: str) -> None:
        now = self._clock()
        with self._lock:
            if now - self._logged_at.get(message, -math.inf) < _LOG_INTERVAL:
                return
            self._logged_at[message] = now
        logger.error(message, reason)


def _write_last(feed: weakref.ref[ChangeFeed]) -> None:
    ending = feed()
    if ending is not None:
        ending.write_batches()


def _start(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, name="m9m-database", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is going down
        raise DatabaseUnavailable("no thread could be started") from None
    return thread
