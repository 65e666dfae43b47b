"""Leases: tokens that a process takes from Redis in advance, to spend without asking again.

A lease is a run of consecutive theoretical arrival times ("slots"), which the server has reserved
by moving a client's time forward. A slot may be spent as long as the server's clock is at or
before it. After that it is lost, because the bucket has been refilled by exactly that token. So
a slot lies between the moment when it is spent and the limit's tolerance after that moment, and a
window of `w` seconds has at most `burst + rate * w` of them, for any number of processes.

The server's clock is estimated from the time at which the question was sent, so the estimate is
never too early. All times are microseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..processes.bounded_cache import keep_newest
from ..processes.forking import watch
from ..processes.polled_lock import PolledLock
from .gcra import Hit, admitted, known, refused
from .limit import MICROSECONDS, RateLimit
from .store import Want

_MOST_CLIENTS = 65_536
_TRUSTED_FOR = MICROSECONDS


class Reservation(NamedTuple):
    """The server's answer.

    Attributes:
        taken: tokens taken; 0 if the bucket had too few.
        tat: the client's theoretical arrival time before they were taken, which is the first slot.
        now: the server's time.
    """

    taken: int
    tat: int
    now: int


def reserve(limit: RateLimit, tat: int, now: int, cost: int, most: int) -> Reservation:
    """Take the tokens that a request needs, and some in advance: the rule of the Redis script.

    Args:
        limit: the limit.
        tat: the client's stored theoretical arrival time.
        now: the server's time.
        cost: tokens that the request needs.
        most: the most tokens to take at once; no more than a quarter of those available.
    """
    tat = known(limit, tat, now)
    available = (now + limit.tolerance - tat) // limit.interval
    if available < cost:
        return Reservation(0, tat, now)
    return Reservation(max(cost, min(most, available // 4)), tat, now)


@dataclass(slots=True)
class _Run:
    """Slots of one answer, from `start` to before `end`; those from `slot` on are unspent."""

    start: int
    slot: int
    end: int


@dataclass(slots=True)
class _Client:
    """The state of one client.

    Attributes:
        tat: its theoretical arrival time after the server's last answer.
        ahead: the most by which the server's clock is ahead of ours.
        asked: when the server was last asked, by our clock.
        taken: tokens that it gave then.
        used: how many of them requests have needed.
        runs: unspent slots.
        spent: the last run that was spent completely.
    """

    tat: int
    ahead: int
    asked: int
    taken: int = 0
    used: int = 0
    runs: list[_Run] = field(default_factory=list)
    spent: _Run | None = None


class Leases:
    """The leases of one process, in bounded memory; the tokens of a forgotten lease are lost.

    Args:
        capacity: clients remembered, about 300 bytes each.
    """

    def __init__(self, capacity: int = _MOST_CLIENTS) -> None:
        self._capacity = capacity
        self._clients: OrderedDict[tuple[str, str], _Client] = OrderedDict()
        self._lock = PolledLock()
        watch(self)

    def after_fork(self) -> None:
        """Forget all leases: only the parent may spend them."""
        self._clients.clear()

    def spend(
        self, limit: RateLimit, client: str, cost: int, clock: Callable[[], int]
    ) -> Hit | None:
        """Answer a request without asking the server.

        A refusal of the last second is repeated while it must still apply: a client's theoretical
        arrival time only moves forward.

        Args:
            limit: the limit.
            client: the client.
            cost: tokens that the request needs.
            clock: the local clock, read under the lock: a slot must not be spent at a time that
                has passed while this thread waited.

        Returns:
            The result; `None` if the server has to be asked.
        """
        with self._lock:
            hit = self._result(limit, client, cost, clock())
            if hit is not None and hit.admitted:
                _take_slots(self._clients[limit.key, client], limit.interval, cost)
            return hit

    def spend_all(
        self, wants: Sequence[Want], clock: Callable[[], int]
    ) -> tuple[bool, list[Hit | None]]:
        """Spend tokens from several buckets, if this process has leases for all of them.

        Returns:
            Whether they were spent, and the result for each bucket, as far as it is known here.
        """
        with self._lock:
            here = clock()
            hits = [self._result(limit, client, cost, here) for limit, client, cost in wants]
            if not all(hit is not None and hit.admitted for hit in hits):
                return False, hits
            if len({(limit.key, client) for limit, client, _ in wants}) < len(wants):
                return False, hits  # several results may count the same slots
            for limit, client, cost in wants:
                _take_slots(self._clients[limit.key, client], limit.interval, cost)
        return True, hits

    def _result(self, limit: RateLimit, client: str, cost: int, here: int) -> Hit | None:
        """Return the result of spending, and take nothing; the caller holds the lock."""
        entry = self._clients.get((limit.key, client))
        if entry is None:
            return None
        # Assume that our clock may be slow by a thousandth, so that no slot is spent too late.
        now = here + entry.ahead + max(0, here - entry.asked) // 1_000
        slot = _slot_after(entry, limit.interval, cost, now)
        if slot is not None:
            return admitted(limit, slot, now)
        if (
            0 <= here - entry.asked <= _TRUSTED_FOR
            and entry.tat + cost * limit.interval > now + limit.tolerance
        ):
            return refused(limit, entry.tat, now, cost)
        return None

    def ahead(self, limit: RateLimit, client: str, most: int, here: int) -> int:
        """Return how many tokens to ask for: twice as many as last time, if those were needed.

        A process that rarely sees a client takes none in advance and leaves them to the others.

        Args:
            limit: the limit.
            client: the client.
            most: the most tokens to take at once.
            here: the local time.
        """
        entry = self._clients.get((limit.key, client))
        if entry is None or not 0 <= here - entry.asked <= limit.tolerance:
            return 1
        return min(most, 2 * entry.used if entry.used >= entry.taken else max(1, entry.used))

    def add(self, limit: RateLimit, client: str, cost: int, answer: Reservation, sent: int) -> Hit:
        """Record the server's answer, and spend the tokens that the request needs.

        Args:
            limit: the limit.
            client: the client.
            cost: tokens that the request needs.
            answer: the server's answer.
            sent: the local time when the server was asked.
        """
        taken, tat, now = answer
        end = tat + taken * limit.interval
        with self._lock:
            entry = self._clients.get((limit.key, client))
            if entry is None:
                entry = _Client(end, now - sent, sent)
            else:
                entry.tat, entry.ahead, entry.asked = end, now - sent, sent
            keep_newest(self._clients, (limit.key, client), entry, self._capacity)
            if not taken:
                return refused(limit, tat, now, cost)
            entry.taken, entry.used = taken, cost
            slot = tat + cost * limit.interval
            if slot < end:
                entry.runs.append(_Run(tat, slot, end))
        return admitted(limit, slot, now)

    def give_back(self, limit: RateLimit, client: str, cost: int) -> bool:
        """Put spent slots back into a lease; they can be spent until their time has passed.

        Returns:
            Whether they were put back; otherwise the server has to refund the tokens.
        """
        width = cost * limit.interval
        with self._lock:
            entry = self._clients.get((limit.key, client))
            if entry is None:
                return False
            if entry.runs and entry.runs[0].slot - width >= entry.runs[0].start:
                entry.runs[0].slot -= width
                return True
            run = entry.spent
            if run is None or run.slot - width < run.start:
                return False
            run.slot -= width
            entry.runs.insert(0, run)
            entry.spent = None
            return True

    def forget(self, limit: RateLimit, client: str) -> None:
        """Forget a client, with the tokens that were taken in advance for it."""
        with self._lock:
            self._clients.pop((limit.key, client), None)


def _slot_after(entry: _Client, interval: int, cost: int, now: int) -> int | None:
    """Drop slots whose time has passed; return the slot that follows the next `cost` slots.

    Return `None` if there are too few.
    """
    runs = entry.runs
    if not runs:
        return None
    for run in runs:
        if run.slot < now:
            run.slot += -((run.slot - now) // interval) * interval
    runs[:] = [run for run in runs if run.slot < run.end]
    for run in runs:
        unspent = (run.end - run.slot) // interval
        if unspent >= cost:
            return run.slot + cost * interval
        cost -= unspent
    return None


def _take_slots(entry: _Client, interval: int, cost: int) -> None:
    """Spend the next `cost` slots; the caller has checked that there are enough."""
    entry.used += cost
    runs = entry.runs
    while cost:
        run = runs[0]
        spent = min(cost, (run.end - run.slot) // interval)
        run.slot += spent * interval
        cost -= spent
        if run.slot == run.end:
            entry.spent = runs.pop(0)
