"""MemoryStore: rate limits of one process, in bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .gcra import Hit, give_back, take
from .limit import MICROSECONDS, RateLimit

_SLOTS = 8

_Bucket = dict[tuple[str, str], tuple[int, RateLimit]]


class MemoryStore:
    """Theoretical arrival times in dictionaries of fixed size.

    There are `capacity / 8` buckets of 8 slots; which bucket a client of a limit belongs to
    follows from its hash, which differs from process to process, so that nobody can choose whom
    to share one with. A slot whose TAT has passed is free. In a full bucket the earliest TAT
    gives way; if all are at their limit the newcomer is refused: a flood of addresses frees
    nobody.

    Args:
        capacity: clients remembered, of all limits together, about 250 bytes each.
        clock: seconds of a clock that never steps back.
    """

    def __init__(
        self, capacity: int = 262_144, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._buckets: list[_Bucket | None] = [None] * max(1, capacity // _SLOTS)
        self._clock = clock
        self._lock = threading.Lock()

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""
        now = int(self._clock() * MICROSECONDS)
        key = (limit.key, client)
        with self._lock:
            index = hash(key) % len(self._buckets)
            bucket = self._buckets[index]
            if bucket is None:
                bucket = self._buckets[index] = {}
            known = bucket.get(key)
            if known is None and len(bucket) == _SLOTS:
                wait = _make_room(bucket, now)
                if wait:
                    seconds = -(-wait // MICROSECONDS)
                    return Hit(limit, False, 0, seconds, seconds)
            tat, hit = take(limit, now if known is None else known[0], now, cost)
            bucket[key] = (tat, limit)
        return hit

    def peek(self, limit: RateLimit, client: str) -> Hit:
        """Return what a hit would say, and take nothing."""
        now = int(self._clock() * MICROSECONDS)
        return take(limit, self._tat(limit, client, now), now)[1]

    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        """Put tokens back that were taken."""
        now = int(self._clock() * MICROSECONDS)
        key = (limit.key, client)
        with self._lock:
            bucket = self._buckets[hash(key) % len(self._buckets)]
            if bucket is not None and key in bucket:
                bucket[key] = (give_back(limit, bucket[key][0], now, cost), limit)

    def _tat(self, limit: RateLimit, client: str, now: int) -> int:
        key = (limit.key, client)
        bucket = self._buckets[hash(key) % len(self._buckets)]
        known = None if bucket is None else bucket.get(key)
        return now if known is None else known[0]


def _make_room(bucket: _Bucket, now: int) -> int:
    """Free a slot, or return how many microseconds have to pass before there is one."""
    waits = {}
    for key, (tat, limit) in bucket.items():
        ahead = tat - now
        if ahead > limit.tolerance:  # no TAT of ours: a clock that stepped back
            ahead = 0
        # Below zero there is a token left, and the lower the more of them.
        waits[key] = ahead + limit.interval - limit.tolerance
    first = min(waits, key=waits.__getitem__)
    if waits[first] > 0:
        return waits[first]
    del bucket[first]
    return 0
