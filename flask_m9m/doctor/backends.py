"""Backends: what the app's database and Redis answer, each asked once and not for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..crypto.cipher import key_id_of
from ..errors import DatabaseUnavailable
from ..ratelimit import StoreFailure
from ..ratelimit.redis_pool import packed
from ..ratelimit.redis_servers import open_servers
from ..storage import ApiKey

if TYPE_CHECKING:
    from ..storage import Database
    from ..storage.transaction import Transaction

T = TypeVar("T")

Clock = Callable[[], float]

DATABASE_SECONDS = 3.0
REDIS_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Kept:
    """What a database keeps.

    Attributes:
        keys: its API keys.
        disabled: the names of disabled users.
        seals: with which keys credentials are sealed, and how many with each.
        trail_key: the id of the encryption key that the audit trail needs.
    """

    keys: Sequence[ApiKey] = ()
    disabled: frozenset[str] = frozenset()
    seals: tuple[tuple[str, int], ...] = ()
    trail_key: str | None = None


@dataclass(frozen=True, slots=True)
class DatabaseAnswer:
    """What a database says.

    Attributes:
        where: its URL without a password.
        version: its schema's; `None` where it has none of our tables.
        newest: the version that this package wants.
        ahead: seconds by which its clock is ahead of this machine's; `None` where it has none.
        kept: what is in it, where its schema is the newest.
    """

    where: str
    version: str | None
    newest: str
    ahead: float | None
    kept: Kept


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A backend that gave no answer."""

    reason: str


def ask_database(database: Database, clock: Clock) -> DatabaseAnswer | Unreachable:
    """Ask a database; one that is not there is not made."""
    try:
        return within(DATABASE_SECONDS, lambda: _ask(database, clock))
    except TimeoutError:
        return Unreachable(f"it did not answer within {DATABASE_SECONDS:g} s")
    except DatabaseUnavailable as error:
        return Unreachable(str(error))


def _ask(database: Database, clock: Clock) -> DatabaseAnswer:
    where, version, newest = database.status()
    kept, ahead = Kept(), None
    if version == newest:
        kept = database.read(_kept)
    if version is not None or not database.makes_itself:
        ahead = _ahead(database, clock)
    return DatabaseAnswer(where, version, newest, ahead, kept)


def _kept(transaction: Transaction) -> Kept:
    return Kept(
        tuple(transaction.identities.keys()),
        frozenset(user.username for user in transaction.identities.users() if user.disabled),
        tuple(sorted(transaction.credentials.sealed_with().items())),
        key_id_of(transaction.audit.key()),
    )


def _ahead(database: Database, clock: Clock) -> float | None:
    """Return by how much a server's clock is ahead; SQLite has this machine's."""
    before = clock()
    theirs = database.server_time()
    return None if theirs is None else theirs - (before + clock()) / 2


def ask_redis(url: str, clock: Clock) -> float | Unreachable:
    """Ask Redis for its time; return by how many seconds its clock is ahead."""

    def ask() -> float:
        deadline = time.monotonic() + REDIS_SECONDS
        before = clock()
        [pool, *_] = open_servers(url).masters(deadline)
        [answer] = pool.exchange([packed(b"TIME")], deadline)
        if isinstance(answer, Exception):
            raise StoreFailure("Redis cannot be used: it refuses TIME")
        return int(answer[0]) + int(answer[1]) / 1e6 - (before + clock()) / 2

    try:
        return within(REDIS_SECONDS + 0.5, ask)
    except TimeoutError:
        return Unreachable(f"it did not answer within {REDIS_SECONDS:g} s")
    except StoreFailure as error:
        return Unreachable(str(error))


def within(seconds: float, ask: Callable[[], T]) -> T:
    """Return what a function returns, if it takes no longer.

    It goes on in a thread that keeps no process alive.

    Raises:
        TimeoutError: it takes longer.
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
