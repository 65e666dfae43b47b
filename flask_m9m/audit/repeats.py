"""Repeats: counts repeated refusals, so that a flood of them leaves a bounded trail.

Refusals of one source, event, route, outcome and target are alike. The first five of them are
recorded as they happen. The next ones are only counted, and one event a minute stands for them:

    {"event": "authentication_failed", …, "details": {"repeated": 1140, "since": "2026-01-31T…Z"}}

Its time is that of the latest refusal; what differs between the refusals is left out. A refusal is
recorded as it happens again once a minute has passed without one like it.

However many sources there are, a process records at most 300 refusals a minute as they happen, and
counts 256 kinds apart. The refusals of all other kinds are counted together by event and outcome.

Counts are kept in memory. They are written when a request comes after the minute, and as the
process ends; a killed process loses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..processes.forking import fork_safe_lock, watch
from .events import SUCCESS, Event, EventName, iso_time, written

_REFUSALS = frozenset(
    {EventName.AUTHENTICATION_FAILED, EventName.ACCESS_DENIED, EventName.RATE_LIMITED}
)
_MINUTE = 60.0
_FIRST = 5  # refusals of one kind that are recorded as they happen
_AT_ONCE = 300  # refusals of all kinds that are recorded as they happen, a minute
_KINDS = 256  # counted apart

_SAME = Event._fields.index("subject")  # the field from which on refusals may be alike

_Kind = tuple[str | None, ...]


class _Repeated:
    """Refusals that are alike.

    Attributes:
        recorded: how many were recorded as they happened.
        count: how many were counted since the last event that stands for some.
        again: whether any were counted in this minute.
    """

    __slots__ = ("_at", "_first", "_since", "_source", "again", "count", "recorded")

    def __init__(self, event: Event, source: str | None) -> None:
        self.recorded = self.count = 0
        self.again = False
        self._source = source
        self._first = event
        self._since = self._at = event.at

    def add(self, event: Event) -> None:
        """Count a refusal, and forget in what it differs from those before it."""
        if self.count == 0:
            self._first, self._since = event, event.at
        elif event[_SAME:] != self._first[_SAME:]:
            self._first = self._in_common(event)
        self._at = event.at
        self.recorded = _FIRST  # from now on all are counted
        self.count += 1
        self.again = True

    def _in_common(self, event: Event) -> Event:
        first = self._first
        pairs = zip(first, event, strict=True)
        common = Event._make(one if one == other else None for one, other in pairs)
        return common._replace(
            address=self._source if common.address is None else common.address,
            details=first.details if first.details == event.details else {},
        )

    def take(self) -> Event:
        """Make the event that stands for the counted refusals, and begin to count anew."""
        details = {
            **self._first.details,
            "repeated": self.count,
            "since": iso_time(self._since),
        }
        self.count = 0
        return self._first._replace(at=self._at, request_id=None, details=details)


class Repeats:
    """Tells which refusals to record, and counts the others.

    Args:
        clock: seconds since the epoch.

    Attributes:
        pending: whether any refusals are counted that no event stands for yet.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = fork_safe_lock()
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """Forget the counts in a child process: the parent writes them."""
        self._kinds: dict[_Kind, _Repeated] = {}
        self._began = -math.inf
        self._left = _AT_ONCE
        self.pending = False

    def count(self, event: Event, source: str | None) -> bool:
        """Count an event if it is one of many like it.

        Args:
            event: any event; only refusals are counted.
            source: the client: its address, or the network that counts as one client.

        Returns:
            Whether it was counted, and so must not be recorded.
        """
        if event.name not in _REFUSALS or event.outcome == SUCCESS:
            return False
        with self._lock:
            if not self._kinds:
                self._began = event.at
            repeated = self._alike(event, source)
            if repeated.recorded < _FIRST and self._left > 0:
                repeated.recorded += 1
                self._left -= 1
                return False
            repeated.add(event)
            self.pending = True
            return True

    def _alike(self, event: Event, source: str | None) -> _Repeated:
        """Find the refusals that a refusal is counted with."""
        target = event.target
        if target is not None:
            target = written(target, 255)  # an app's own scheme may set any object
        kind: _Kind = (source, event.name, event.route, event.outcome, target)
        if kind not in self._kinds and len(self._kinds) >= _KINDS:
            kind, source = (event.name, event.outcome), None
        found = self._kinds.get(kind)
        if found is None:
            found = self._kinds[kind] = _Repeated(event, source)
        return found

    def due(self) -> list[Event]:
        """Return the events that stand for the counted refusals, if the minute is over."""
        if not self._kinds or 0 <= self._clock() - self._began < _MINUTE:
            return []  # without the lock, for this is asked at every event
        with self._lock:
            now = self._clock()  # under the lock, or a slower thread would see it step back
            if 0 <= now - self._began < _MINUTE:
                return []
            events = self._take()
            self._kinds = {kind: alike for kind, alike in self._kinds.items() if alike.again}
            for alike in self._kinds.values():
                alike.again = False
            self._began, self._left = now, _AT_ONCE
            return events

    def take(self) -> list[Event]:
        """Return the events that stand for the counted refusals, before the minute is over."""
        with self._lock:
            return self._take()

    def _take(self) -> list[Event]:
        self.pending = False
        return [alike.take() for alike in self._kinds.values() if alike.count]
