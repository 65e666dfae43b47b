"""Backend probes: query the app's database and Redis, each once and with a time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ...credentials.encryption.cipher import key_id_of
from ...errors import DatabaseUnavailable
from ...ratelimit.redis_pool import packed
from ...ratelimit.redis_servers import open_servers
from ...ratelimit.store import StoreFailure
from ...storage.records import ApiKey

if TYPE_CHECKING:
    from ...storage.database import Database
    from ...storage.transaction import Transaction

T = TypeVar("T")

Clock = Callable[[], float]

DATABASE_SECONDS = 3.0
REDIS_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class StoredData:
    """The rows of a database that the checks need.

    Attributes:
        keys: all API keys.
        disabled: the names of disabled users.
        seals: for each encryption key, its label and the number of credentials encrypted with it.
        trail_key: the id of the encryption key that the audit trail needs.
    """

    keys: Sequence[ApiKey] = ()
    disabled: frozenset[str] = frozenset()
    seals: tuple[tuple[str, int], ...] = ()
    trail_key: str | None = None


@dataclass(frozen=True, slots=True)
class DatabaseAnswer:
    """The state of a database that answered.

    Attributes:
        where: the database's URL without a password.
        version: the version of its schema; `None` if it has none of our tables.
        newest: the version of the schema that this package needs.
        ahead: seconds by which its clock is ahead of this machine's; `None` for SQLite.
        stored: its rows; empty unless the schema is the newest.
    """

    where: str
    version: str | None
    newest: str
    ahead: float | None
    stored: StoredData


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A backend that cannot be used.

    Attributes:
        reason: the cause, for the user.
    """

    reason: str


def ask_database(database: Database, clock: Clock) -> DatabaseAnswer | Unreachable:
    """Query a database; do not create one that does not exist."""
    try:
        return within(DATABASE_SECONDS, lambda: _query(database, clock))
    except TimeoutError:
        return Unreachable(f"the database did not answer within {DATABASE_SECONDS:g} s")
    except DatabaseUnavailable as error:
        return Unreachable(str(error))


def _query(database: Database, clock: Clock) -> DatabaseAnswer:
    where, version, newest = database.status()
    stored, ahead = StoredData(), None
    if version == newest:
        stored = database.read(_read_stored)
    if version is not None or not database.creates_own_schema:
        ahead = _seconds_ahead(database, clock)
    return DatabaseAnswer(where, version, newest, ahead, stored)


def _read_stored(transaction: Transaction) -> StoredData:
    return StoredData(
        tuple(transaction.identities.keys()),
        frozenset(user.username for user in transaction.identities.users() if user.disabled),
        tuple(sorted(transaction.credentials.sealed_with().items())),
        key_id_of(transaction.audit.key()),
    )


def _seconds_ahead(database: Database, clock: Clock) -> float | None:
    """Measure how far a server's clock is ahead; `None` for SQLite, which has no clock."""
    before = clock()
    theirs = database.server_time()
    return None if theirs is None else theirs - (before + clock()) / 2


def ask_redis(url: str, clock: Clock) -> float | Unreachable:
    """Ask Redis for its time, and return the seconds by which its clock is ahead."""

    def ask() -> float:
        deadline = time.monotonic() + REDIS_SECONDS
        before = clock()
        [pool, *_] = open_servers(url).masters(deadline)
        [answer] = pool.exchange([packed(b"TIME")], deadline)
        if isinstance(answer, Exception):
            raise StoreFailure("Redis cannot be used: it refuses the command TIME")
        return int(answer[0]) + int(answer[1]) / 1e6 - (before + clock()) / 2

    try:
        return within(REDIS_SECONDS + 0.5, ask)
    except TimeoutError:
        return Unreachable(f"Redis did not answer within {REDIS_SECONDS:g} s")
    except StoreFailure as error:
        return Unreachable(str(error))


def within(seconds: float, ask: Callable[[], T]) -> T:
    """Call a function with a time limit.

    After a timeout the call continues in a daemon thread, which does not keep the process alive.

    Args:
        seconds: the time limit.
        ask: the function; its exceptions are raised here.

    Raises:
        TimeoutError: the call takes longer.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(ask())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]
