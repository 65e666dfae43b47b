"""Leases: tokens that a process has taken ahead, to spend without asking the server again.

A lease is a run of consecutive theoretical arrival times which the server has reserved by moving
a client's time on. One of them, `slot`, may be spent as long as the server's clock is at or before
it; afterwards the bucket has refilled by just that token and the slot is gone. So every slot that
is spent lies between its moment and the limit's tolerance after it, and no window of `w` seconds
holds more than `burst + rate * w`, however many processes hold leases.

The server's clock is reckoned from when the question was sent, and so never too early. All times
are microseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .. import forking
from .gcra import Hit, admitted, known, refused
from .limit import MICROSECONDS, RateLimit
from .store import Want

_MOST_CLIENTS = 65_536
_TRUSTED_FOR = MICROSECONDS


class Reservation(NamedTuple):
    """What the server answered.

    Attributes:
        taken: tokens, none where there were too few.
        tat: the client's theoretical arrival time before they were taken, so the first of them.
        now: the server's time.
    """

    taken: int
    tat: int
    now: int


def reserve(limit: RateLimit, tat: int, now: int, cost: int, most: int) -> Reservation:
    """Take the tokens that a request needs, and some ahead: the rule that servers carry out.

    Args:
        limit: the limit.
        tat: the client's theoretical arrival time as stored.
        now: the server's time.
        cost: tokens that the request needs.
        most: tokens that may be taken at once, but no more than a quarter of what is there.
    """
    tat = known(limit, tat, now)
    available = (now + limit.tolerance - tat) // limit.interval
    if available < cost:
        return Reservation(0, tat, now)
    return Reservation(max(cost, min(most, available // 4)), tat, now)


@dataclass(slots=True)
class _Run:
    """Slots that the server gave at once: from `start` to before `end`, from `slot` on unspent."""

    start: int
    slot: int
    end: int


@dataclass(slots=True)
class _Client:
    """What is known of one client.

    Attributes:
        tat: its theoretical arrival time when the server last answered.
        ahead: how far the server's clock is ahead of ours, at most.
        asked: when the server was last asked, by our clock.
        taken: tokens that it gave then.
        used: those of them that requests needed.
        runs: slots to spend.
        spent: the last of them that is spent.
    """

    tat: int
    ahead: int
    asked: int
    taken: int = 0
    used: int = 0
    runs: list[_Run] = field(default_factory=list)
    spent: _Run | None = None


class Leases:
    """The leases of one process, in bounded memory; what is forgotten is spent by nobody.

    Args:
        capacity: clients remembered, about 300 bytes each.
    """

    def __init__(self, capacity: int = _MOST_CLIENTS) -> None:
        self._capacity = capacity
        self._clients: OrderedDict[tuple[str, str], _Client] = OrderedDict()
        self._lock = forking.lock(self)
        forking.watch(self)

    def after_fork(self) -> None:
        """Forget all of them: they are the parent's to spend."""
        self._clients.clear()

    def spend(self, limit: RateLimit, client: str, cost: int, here: int) -> Hit | None:
        """Answer a request without asking the server.

        A refusal of the last second is repeated as long as it must hold: a client's time only
        moves on.

        Args:
            limit: the limit.
            client: the client.
            cost: tokens that it needs.
            here: the local time.

        Returns:
            What came of it; `None` where the server has to be asked.
        """
        with self._lock:
            hit = self._known(limit, client, cost, here)
            if hit is not None and hit.admitted:
                _take_slots(self._clients[limit.key, client], limit.interval, cost)
            return hit

    def spend_all(self, wants: Sequence[Want], here: int) -> tuple[bool, list[Hit | None]]:
        """Spend what a request needs of several buckets, where all of it is here.

        Returns:
            Whether that was so, and what spending came to or would have come to for each.
        """
        with self._lock:
            hits = [self._known(limit, client, cost, here) for limit, client, cost in wants]
            if not all(hit is not None and hit.admitted for hit in hits):
                return False, hits
            if len({(limit.key, client) for limit, client, _ in wants}) < len(wants):
                return False, hits  # each may have reckoned with the same slots
            for limit, client, cost in wants:
                _take_slots(self._clients[limit.key, client], limit.interval, cost)
        return True, hits

    def _known(self, limit: RateLimit, client: str, cost: int, here: int) -> Hit | None:
        """Return what spending comes to, and take nothing; the lock is held."""
        entry = self._clients.get((limit.key, client))
        if entry is None:
            return None
        # Our clock may be slow, by a thousandth: no slot is spent late for that.
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

        A process that rarely sees a client takes none ahead, and the others find them.

        Args:
            limit: the limit.
            client: the client.
            most: tokens that may be taken at once.
            here: the local time.
        """
        entry = self._clients.get((limit.key, client))
        if entry is None or not 0 <= here - entry.asked <= limit.tolerance:
            return 1
        return min(most, 2 * entry.used if entry.used >= entry.taken else max(1, entry.used))

    def add(self, limit: RateLimit, client: str, cost: int, answer: Reservation, sent: int) -> Hit:
        """Note what the server answered, and spend what the asking request needs of it.

        Args:
            limit: the limit.
            client: the client.
            cost: tokens that the request needs.
            answer: the server's.
            sent: the local time when it was asked.
        """
        taken, tat, now = answer
        end = tat + taken * limit.interval
        with self._lock:
            entry = self._clients.get((limit.key, client))
            if entry is None:
                entry = self._clients[limit.key, client] = _Client(end, now - sent, sent)
                if len(self._clients) > self._capacity:
                    self._clients.popitem(last=False)
            else:
                self._clients.move_to_end((limit.key, client))
                entry.tat, entry.ahead, entry.asked = end, now - sent, sent
            if not taken:
                return refused(limit, tat, now, cost)
            entry.taken, entry.used = taken, cost
            slot = tat + cost * limit.interval
            if slot < end:
                entry.runs.append(_Run(tat, slot, end))
        return admitted(limit, slot, now)

    def give_back(self, limit: RateLimit, client: str, cost: int) -> bool:
        """Put slots of a lease back that were spent, to be spent until their moment is over.

        Returns:
            Whether they were; otherwise so many were not of a lease, and are the server's.
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
        """Forget what is known of a client, with what was taken ahead for it."""
        with self._lock:
            self._clients.pop((limit.key, client), None)


def _slot_after(entry: _Client, interval: int, cost: int, now: int) -> int | None:
    """Drop the slots whose moment is over, and return the one after those to be spent first.

    `None` where there are too few.
    """
    runs = entry.runs
    if not runs:
        return None
    for run in runs:
        if run.slot < now:
            run.slot += -((run.slot - now) // interval) * interval
    runs[:] = [run for run in runs if run.slot < run.end]
    for run in runs:
        held = (run.end - run.slot) // interval
        if held >= cost:
            return run.slot + cost * interval
        cost -= held
    return None


def _take_slots(entry: _Client, interval: int, cost: int) -> None:
    """Take the slots that have to be spent first; there are enough."""
    entry.used += cost
    runs = entry.runs
    while cost:
        run = runs[0]
        spent = min(cost, (run.end - run.slot) // interval)
        run.slot += spent * interval
        cost -= spent
        if run.slot == run.end:
            entry.spent = runs.pop(0)
