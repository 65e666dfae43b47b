"""MemoryStore: rate limits of one process, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from .. import forking
from .gcra import Hit, give_back, look, take
from .limit import MICROSECONDS, RateLimit
from .store import LimitStore, Spender

_SLOTS = 8

_Bucket = dict[tuple[str, str], tuple[int, RateLimit]]
_Table = list[_Bucket | None]


class MemoryStore(LimitStore):
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

    shared = False
    where = "by each process alone"

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
            bucket = self._bucket_of(limit, client)
            if key in bucket:
                bucket[key] = (give_back(limit, bucket[key][0], now, cost), limit)

    def peek(self, limit: RateLimit, client: str) -> Hit:
        """Return what the client's next request would be told, and take nothing."""
        now = int(self._clock() * MICROSECONDS)
        with self._lock:
            tat, _ = self._bucket_of(limit, client).get((limit.key, client), (now, limit))
        return look(limit, tat, now)

    def reset(self, limit: RateLimit, client: str) -> None:
        """Fill the client's bucket."""
        with self._lock:
            self._bucket_of(limit, client).pop((limit.key, client), None)

    def client_id(self, limit: RateLimit, client: str) -> str:
        """Return the client: its memory is nobody else's to read."""
        return client

    def spenders(self) -> Iterator[Spender]:
        """Return, in no order, whose buckets are not full."""
        now = int(self._clock() * MICROSECONDS)
        with self._lock:
            buckets = [bucket for table in self._tables.values() for bucket in table if bucket]
            slots = [slot for bucket in buckets for slot in bucket.items()]
        for (_, client), (tat, limit) in slots:
            if now < tat <= now + limit.tolerance:
                yield Spender(limit, client, look(limit, tat, now))

    def _bucket_of(self, limit: RateLimit, client: str) -> _Bucket:
        """Return the bucket that a client is in, an empty one where there is none."""
        table = self._tables.get(limit.scope)
        return (table and table[hash(client) % self._bucket_count]) or {}


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
