"""Changes that a request waits for, with a limit on the time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

from ..errors import DatabaseUnavailable
from .engine import BUSY_SECONDS

if TYPE_CHECKING:
    from .feed import ChangeFeed
    from .transaction import Transaction

T = TypeVar("T")

_USUAL, _LONG = 2.0, 10.0  # seconds
_PATIENCE = 1.5  # seconds for other writers, so that the database's own answer comes in time


def change_in_time(
    feed: ChangeFeed,
    change: Callable[[Transaction], T],
    patience: float = BUSY_SECONDS,
    *,
    long: bool = False,
) -> T:
    """Make a change in a transaction and return its result, waiting at most two seconds.

    A server that stalls answers no timeout of its own either, so the caller stops waiting. A change
    that nobody waits for any more is rolled back; only one whose commit stalls may still be made.

    Args:
        feed: the change feed of the database.
        change: makes the change; it may run in another thread, in the caller's context.
        patience: seconds to wait for the other writers of a SQLite file, which never stalls.
        long: whether it may change many rows, such as a chain of keys: then it has ten seconds.

    Raises:
        DatabaseUnavailable: the database does not answer in time, or fails.
    """
    abandoned = threading.Event()
    if not feed.database.local:
        patience = min(patience, _PATIENCE)

    def run() -> T:
        with feed.write(patience) as transaction:
            result = change(transaction)
            if abandoned.is_set():
                raise DatabaseUnavailable("the request no longer waits for the change")
            return result

    with feed.carry():
        context = copy_context()
    try:
        return feed.limit_time(lambda: context.run(run), _LONG if long else _USUAL)
    finally:
        abandoned.set()
