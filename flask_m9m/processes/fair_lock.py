"""FairLock: a lock between threads that is handed over in the order in which they asked for it."""

from __future__ import annotations

import threading
from collections import deque

from .forking import fork_safe_lock, watch


class FairLock:
    """A lock without starvation: whoever releases it hands it to the thread that waits longest.

    A `threading.Lock` goes to any thread that comes by, most often to the one that had it last. It
    is free in a child process.
    """

    def __init__(self) -> None:
        self._guard = fork_safe_lock()
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """Free the lock in a child process, which has none of the threads that wait."""
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def acquire(self, timeout: float) -> bool:
        """Take the lock; tell whether it was handed over within `timeout` seconds."""
        with self._guard:
            if not self._held:
                self._held = True
                return True
            handed_over = threading.Lock()
            handed_over.acquire()
            self._waiting.append(handed_over)
        try:
            if handed_over.acquire(timeout=timeout):
                return True
        except BaseException:
            if not self._leave(handed_over):
                self.release()
            raise
        return not self._leave(handed_over)

    def _leave(self, handed_over: threading.Lock) -> bool:
        """Stop waiting; tell whether the lock was not handed over meanwhile."""
        with self._guard:
            if handed_over in self._waiting:
                self._waiting.remove(handed_over)
                return True
            return False

    def release(self) -> None:
        """Hand the lock to the next thread, or free it."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False
