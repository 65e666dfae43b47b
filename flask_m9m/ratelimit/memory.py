"""MemoryStore: rate limits of one process, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable

from .. import forking
from .gcra import Hit, give_back, take
from .limit import MICROSECONDS, RateLimit

_SLOTS = 8

_Bucket = dict[tuple[str, str], tuple[int, RateLimit]]
_Table = list[_Bucket | None]


class MemoryStore:
    """Theoretical arrival times in dictionaries of fixed size.

    Each scope has a table of its own, so that no limit's clients can crowd out another's. It has
    `capacity / 8` buckets of 8 slots; which bucket a client belongs to follows from its hash,
    which differs from process to process, so that nobody can choose whom to share one with. A
    slot whose TAT has passed is free. In a full bucket whoever has used least of its limit gives
    way; if all are at their limit the newcomer is refused: a flood of addresses frees nobody.

    Args:
        capacity: clients remembered in each scope, about 250 bytes each.
        clock: seconds of a clock that never steps back.
    """

    def __init__(
        self, capacity: int = 131_072, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bucket_count = max(1, capacity // _SLOTS)
        self._clock = clock
        self._tables: dict[str, _Table] = {}
        self._lock = forking.lock(self)

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""
        now = int(self._clock() * MICROSECONDS)
        key = (limit.key, client)
        with self._lock:
            table = self._tables.get(limit.scope)
            if table is None:
                table = self._tables[limit.scope] = [None] * self._bucket_count
            index = hash(client) % self._bucket_count
            bucket = table[index]
            if bucket is None:
                bucket = table[index] = {}
            known = bucket.get(key)
            if known is None and len(bucket) == _SLOTS:
                wait = _make_room(bucket, now)
                if wait:
                    seconds = -(-wait // MICROSECONDS)
                    return Hit(limit, False, 0, seconds, seconds)
            tat, hit = take(limit, now if known is None else known[0], now, cost)
            bucket[key] = (tat, limit)
        return hit

    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        """Put tokens back that were taken."""
        now = int(self._clock() * MICROSECONDS)
        key = (limit.key, client)
        with self._lock:
            table = self._tables.get(limit.scope)
            bucket = None if table is None else table[hash(client) % self._bucket_count]
            if bucket is not None and key in bucket:
                bucket[key] = (give_back(limit, bucket[key][0], now, cost), limit)


def _make_room(bucket: _Bucket, now: int) -> int:
    """Free a slot, or return how many microseconds have to pass before there is one."""
    least, gives_way, first_token = 2.0, None, 0
    for key, (tat, limit) in bucket.items():
        ahead = tat - now
        if not 0 < ahead <= limit.tolerance:  # free, or no TAT of ours: the clock stepped back
            ahead = 0
        until_token = ahead + limit.interval - limit.tolerance
        if until_token > 0:
            first_token = min(first_token or until_token, until_token)
        elif ahead / limit.tolerance < least:
            least, gives_way = ahead / limit.tolerance, key
    if gives_way is None:
        return first_token
    del bucket[gives_way]
    return 0
