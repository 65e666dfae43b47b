"""Quiet: throttles log lines, at most one of a kind in so many seconds."""

from __future__ import annotations

import math
from collections.abc import Callable

from .polled_lock import PolledLock


class Quiet:
    """Decides when to log, and counts the occurrences that were not logged.

    A clock that was set back ends the silence, so that a wrong time cannot prolong it.

    Args:
        interval: seconds of silence after a line.
        clock: the time in seconds.
    """

    def __init__(self, interval: float, clock: Callable[[], float]) -> None:
        self._interval = interval
        self._clock = clock
        self._logged: dict[str, tuple[float, int]] = {}
        self._lock = PolledLock()

    def record(self, key: str) -> int:
        """Record an occurrence.

        Args:
            key: the kind of line; each kind is remembered for good, so there must be few.

        Returns:
            0 if nothing is to be logged now; else the number of occurrences since the last line
            of this kind, including this one.
        """
        with self._lock:
            now = self._clock()  # under the lock, or a slower thread would see it step back
            logged_at, silent = self._logged.get(key, (-math.inf, 0))
            if 0 <= now - logged_at < self._interval:
                self._logged[key] = (logged_at, silent + 1)
                return 0
            self._logged[key] = (now, 0)
            return silent + 1
