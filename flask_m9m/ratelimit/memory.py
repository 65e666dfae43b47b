"""MemoryStore: rate limits in the memory of one process, of bounded size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from ..processes.polled_lock import PolledLock
from .gcra import Hit, give_back, look, take
from .limit import MICROSECONDS, RateLimit
from .store import LimitStore, Spender

_SLOTS = 8

_Bucket = dict[tuple[str, str], tuple[int, RateLimit]]
_Table = list[_Bucket | None]


class MemoryStore(LimitStore):
    """Theoretical arrival times in dictionaries of fixed size.

    Each scope has its own table, so that the clients of one limit cannot crowd out those of
    another. A table has `capacity / 8` buckets of 8 slots. A client's hash selects its bucket; the
    hash differs between processes, so that nobody can choose a bucket to share. A slot whose TAT
    has passed is free. In a full bucket, the client that has used the smallest share of its limit
    loses its slot. If all clients there are at their limit, a new client is refused, so that a
    flood of addresses frees nobody.

    Args:
        capacity: clients remembered in each scope, about 250 bytes each.
        clock: a monotonic clock, in seconds.
    """

    shared = False
    where = "by each process alone"

    def __init__(
        self, capacity: int = 131_072, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bucket_count = max(1, capacity // _SLOTS)
        self._clock = clock
        self._tables: dict[str, _Table] = {}
        self._lock = PolledLock()

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""
        key = (limit.key, client)
        with self._lock:
            now = self._now()
            table = self._tables.get(limit.scope)
            if table is None:
                table = self._tables[limit.scope] = [None] * self._bucket_count
            index = hash(client) % self._bucket_count
            bucket = table[index]
            if bucket is None:
                bucket = table[index] = {}
            entry = bucket.get(key)
            if entry is None and len(bucket) == _SLOTS:
                wait = _make_room(bucket, now)
                if wait:
                    seconds = -(-wait // MICROSECONDS)
                    return Hit(limit, False, 0, seconds, seconds)
            tat, hit = take(limit, now if entry is None else entry[0], now, cost)
            bucket[key] = (tat, limit)
        return hit

    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        """Put back tokens that were taken."""
        key = (limit.key, client)
        with self._lock:
            now = self._now()
            bucket = self._bucket_of(limit, client)
            if key in bucket:
                bucket[key] = (give_back(limit, bucket[key][0], now, cost), limit)

    def peek(self, limit: RateLimit, client: str) -> Hit:
        """Return the result that the client's next request would get, and take nothing."""
        with self._lock:
            now = self._now()
            tat, _ = self._bucket_of(limit, client).get((limit.key, client), (now, limit))
        return look(limit, tat, now)

    def reset(self, limit: RateLimit, client: str) -> None:
        """Fill the client's bucket."""
        with self._lock:
            self._bucket_of(limit, client).pop((limit.key, client), None)

    def client_id(self, limit: RateLimit, client: str) -> str:
        """Return the client itself: no other process can read this memory."""
        return client

    def spenders(self) -> Iterator[Spender]:
        """Return the clients whose buckets are not full, in no order."""
        with self._lock:
            now = self._now()
            buckets = [bucket for table in self._tables.values() for bucket in table if bucket]
            slots = [slot for bucket in buckets for slot in bucket.items()]
        for (_, client), (tat, limit) in slots:
            if now < tat <= now + limit.tolerance:
                yield Spender(limit, client, look(limit, tat, now))

    def _now(self) -> int:
        """Read the clock; the caller holds the lock.

        A hit that is stamped before another one and counted after it would find that one's time
        impossibly far ahead, and the bucket full.
        """
        return int(self._clock() * MICROSECONDS)

    def _bucket_of(self, limit: RateLimit, client: str) -> _Bucket:
        """Return a client's bucket; an empty one if it does not exist yet."""
        table = self._tables.get(limit.scope)
        return (table and table[hash(client) % self._bucket_count]) or {}


def _make_room(bucket: _Bucket, now: int) -> int:
    """Free a slot and return 0, or return the microseconds until a slot can be freed."""
    least, removable, first_token = 2.0, None, 0
    for key, (tat, limit) in bucket.items():
        ahead = tat - now
        if not 0 < ahead <= limit.tolerance:  # free, or impossible: the clock stepped back
            ahead = 0
        until_token = ahead + limit.interval - limit.tolerance
        if until_token > 0:
            first_token = min(first_token or until_token, until_token)
        elif ahead / limit.tolerance < least:
            least, removable = ahead / limit.tolerance, key
    if removable is None:
        return first_token
    del bucket[removable]
    return 0
