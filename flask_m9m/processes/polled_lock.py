"""PolledLock: a lock for sections of microseconds that every request enters."""

from __future__ import annotations

import time

from .forking import fork_safe_lock

PAUSE = 0.0002
"""Seconds between two attempts."""


class PolledLock:
    """A lock whose waiting threads try it at intervals; free in every child process.

    A thread that waits for a `threading.Lock` has it before it has the interpreter lock, for which
    it waits up to 5 ms for each running thread. Until then nobody else can enter. A thread that
    tries holds the interpreter lock already. So a section is left within microseconds, unless it
    gives the interpreter lock away: it must not read, write, log or wait for anything.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = fork_safe_lock()

    def __enter__(self) -> None:
        while not self._lock.acquire(False):
            time.sleep(PAUSE)

    def __exit__(self, *error: object) -> None:
        self._lock.release()
