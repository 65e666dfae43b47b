"""The backlog: audit events of requests, queued and written to the database in batches.

A request only appends to the queue. A thread writes the queue every second, or sooner when many
events wait. The thread starts with the first event and ends when the queue is empty. The events
that are left when the process ends are written then. When requests come faster than the thread
writes, each request waits a moment, so that the thread gets its turn.

A killed process loses the events of its last second, at most some ten thousand, and all that
waited for an unreachable database. Events that do not fit into the queue, and events that the
database rejects, are counted; the count is written as an event of its own.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

from ..errors import DatabaseUnavailable, Unwritable
from ..processes.forking import watch
from .events import Event, EventName

logger = logging.getLogger("flask_m9m")

_CAPACITY = 65_536  # queued events, about 40 MiB
_AT_ONCE = 1_000  # events in one transaction, so that other writers get their turn
_CROWDED = 8_192  # queued events from which on each request waits for the thread
_MOMENT = 0.01  # seconds that a request waits
_INTERVAL = 1.0  # seconds between writes
_LONGEST_PAUSE = 30.0  # seconds between attempts while the database is unreachable
_LAST_PATIENCE = 10.0  # seconds that an ending process waits for a write in progress


class Backlog:
    """A bounded queue of events and the thread that writes it.

    Args:
        write: writes a batch of events, all of them or none.
        clock: seconds since the epoch.
        most: how many events may be queued.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Event]], None],
        clock: Callable[[], float] = time.time,
        most: int = _CAPACITY,
    ) -> None:
        self._write = write
        self._clock = clock
        self._most = most
        self._waiting: deque[Event] = deque()
        self._dropped = 0
        self._ends_with_process = False
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """Empty the queue in a child process: the parent has these events and their thread."""
        self._waiting.clear()
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._many = threading.Event()
        self._written = threading.Event()
        self._away = False
        self._size = _AT_ONCE
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def add(self, event: Event) -> None:
        """Queue an event; the thread writes it within about a second."""
        waiting = self._waiting
        if len(waiting) >= self._most:
            with self._lock:
                self._dropped += 1
            return
        waiting.append(event)
        if self._thread is None:
            self._start()
        elif len(waiting) >= _AT_ONCE:
            if not self._many.is_set():
                self._many.set()
            if len(waiting) >= _CROWDED and not self._away:
                self._written.clear()
                self._written.wait(_MOMENT)

    def flush(self) -> None:
        """Write all queued events now.

        Raises:
            DatabaseUnavailable: the events that are not written yet stay queued.
        """
        with self._writing:
            self._write_all()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            if not self._ends_with_process:
                self._ends_with_process = True
                atexit.register(_write_last, weakref.ref(self))
            thread = threading.Thread(target=self._run, name="m9m-audit", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down: `_write_last` follows
                return
            self._thread = thread

    def _run(self) -> None:
        pause, many = _INTERVAL, self._many
        while True:
            many.wait(pause)
            many.clear()
            try:
                self.flush()
                pause, self._away = _INTERVAL, False
            except Exception as error:
                self._away = True
                if pause == _INTERVAL or pause >= _LONGEST_PAUSE:
                    logger.error(
                        "audit: %d events wait to be written: %s",
                        len(self._waiting),
                        _reason(error),
                    )
                pause = min(2 * pause, _LONGEST_PAUSE)
            if not self._waiting and self._end_thread():
                return

    def _end_thread(self) -> bool:
        """Forget the thread unless events have come meanwhile; tell whether it may end."""
        with self._lock:
            self._thread = None
            if self._waiting:
                self._thread = threading.current_thread()
            return self._thread is None

    def _write_all(self) -> None:
        while self._waiting or self._dropped:
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            size = min(self._size, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(size)]
            events = batch
            if dropped:
                details = {"count": dropped}
                events = [*batch, Event(EventName.EVENTS_DROPPED, self._clock(), details=details)]
            try:
                self._write(events)
            except BaseException as error:
                with self._lock:
                    self._dropped += dropped
                if _is_temporary(error) or not self._narrow(batch, error):
                    self._waiting.extendleft(reversed(batch))
                    raise
            else:
                self._size = min(_AT_ONCE, 2 * self._size)
            finally:
                self._written.set()

    def _narrow(self, batch: list[Event], error: BaseException) -> bool:
        """Retry in smaller batches, or drop a single event that cannot be written.

        Returns:
            Whether to go on writing.
        """
        if len(batch) > 1:
            self._waiting.extendleft(reversed(batch))
            self._size = max(1, len(batch) // 8)
            return True
        for event in batch:
            logger.error(
                "audit: dropped an event %s, which the database rejects: %s",
                event.name,
                _reason(error),
            )
            with self._lock:
                self._dropped += 1
        return bool(batch)

    def end(self) -> None:
        """Write the queued events as the process ends."""
        if not self._writing.acquire(timeout=_LAST_PATIENCE):
            logger.error(
                "audit: %d events are lost: another write takes too long", len(self._waiting)
            )
            return
        try:
            self._write_all()
        except Exception as error:
            logger.error("audit: %d events are lost: %s", len(self._waiting), _reason(error))
        finally:
            self._writing.release()


def _is_temporary(error: BaseException) -> bool:
    """Tell whether the same write may succeed later."""
    if isinstance(error, Exception):
        return isinstance(error, DatabaseUnavailable) and not isinstance(error, Unwritable)
    return True


def _reason(error: BaseException) -> str:
    """Describe an error for the log: only the type, unless it is ours and quotes no data."""
    return str(error) if isinstance(error, DatabaseUnavailable) else type(error).__name__


def _write_last(backlog: weakref.ref[Backlog]) -> None:
    found = backlog()
    if found is not None:
        found.end()
