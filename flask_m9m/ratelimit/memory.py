"""MemoryStore: rate limits of one process, in bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .gcra import Hit, take
from .limit import MICROSECONDS, RateLimit

_SLOTS = 8


class MemoryStore:
    """Theoretical arrival times in dictionaries of fixed size.

    Each limit has `capacity / 8` buckets of 8 slots; a client's bucket follows from its hash,
    which differs from process to process, so that nobody can choose whom to share one with.
    A slot whose TAT has passed is free. In a full bucket the earliest TAT gives way; if all
    are at their limit the newcomer is refused: a flood of addresses frees nobody.

    Args:
        capacity: clients remembered per limit, about 100 bytes each.
        clock: seconds of a clock that never steps back.
    """

    def __init__(
        self, capacity: int = 131_072, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bucket_count = max(1, capacity // _SLOTS)
        self._clock = clock
        self._tables: dict[str, list[dict[str, int] | None]] = {}
        self._lock = threading.Lock()

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""
        now = int(self._clock() * MICROSECONDS)
        with self._lock:
            table = self._tables.get(limit.key)
            if table is None:
                table = self._tables[limit.key] = [None] * self._bucket_count
            index = hash(client) % self._bucket_count
            bucket = table[index]
            if bucket is None:
                bucket = table[index] = {}
            tat = bucket.get(client)
            if tat is None:
                blocking = self._make_room(bucket, limit, now)
                if blocking is not None:
                    return take(limit, blocking, now, cost)[1]
                tat = now
            bucket[client], hit = take(limit, tat, now, cost)
        return hit

    @staticmethod
    def _make_room(bucket: dict[str, int], limit: RateLimit, now: int) -> int | None:
        """Free a slot, or return the TAT that has to pass before there is one."""
        if len(bucket) < _SLOTS:
            return None
        client, earliest = min(bucket.items(), key=lambda slot: slot[1])
        at_its_limit = earliest + limit.interval > now + limit.tolerance
        impossible = earliest > now + limit.tolerance
        if at_its_limit and not impossible:
            return earliest
        del bucket[client]
        return None
