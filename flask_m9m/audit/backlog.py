"""The backlog: events of requests, which wait to be written by the thousand.

A request only appends to it. A thread, begun when something waits and ended when nothing does,
writes what came within a second, or sooner where many did; what is left when the process ends is
written then. Where requests come faster than that, each waits a moment for the thread, which would
not get to write otherwise. So a process that is killed loses what came in its last second, at most
some ten thousand events, and whatever waited for a database that was away. What does not fit is
counted, and so is what the database does not take; the count becomes an event.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence

from .. import forking
from ..errors import DatabaseUnavailable, Unwritable
from .events import Event, EventName

logger = logging.getLogger("flask_m9m")

_MOST = 65_536  # events that wait, some 40 MiB of them
_AT_ONCE = 1_000  # in one transaction: others want to write as well
_CROWDED = 8_192  # events that wait from which on requests wait a moment for the thread
_MOMENT = 0.01
_INTERVAL = 1.0
_LONGEST_PAUSE = 30.0  # between tries while the database is away
_LAST_PATIENCE = 10.0  # seconds that the end of the process waits for a write that goes on


class Backlog:
    """Events that wait to be written.

    Args:
        write: writes some, all or none of them.
        clock: seconds since the epoch.
        most: how many may wait.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Event]], None],
        clock: Callable[[], float] = time.time,
        most: int = _MOST,
    ) -> None:
        self._write = write
        self._clock = clock
        self._most = most
        self._waiting: deque[Event] = deque()
        self._dropped = 0
        self._ends_with_process = False
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Leave what waits to the parent, which has the thread that writes it."""
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
        """Have an event written soon; it waits for nobody."""
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
        """Write all that waits.

        Raises:
            DatabaseUnavailable: what is not written yet goes on to wait.
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
            except RuntimeError:  # the interpreter is going down: `_write_last` follows
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
                    logger.error("audit: %d events wait: %s", len(self._waiting), _reason(error))
                pause = min(2 * pause, _LONGEST_PAUSE)
            if not self._waiting and self._is_over():
                return

    def _is_over(self) -> bool:
        """End the thread, unless something has come meanwhile."""
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
            told = batch
            if dropped:
                details = {"count": dropped}
                told = [*batch, Event(EventName.EVENTS_DROPPED, self._clock(), details=details)]
            try:
                self._write(told)
            except BaseException as error:
                with self._lock:
                    self._dropped += dropped
                if _is_passing(error) or not self._narrow(batch, error):
                    self._waiting.extendleft(reversed(batch))
                    raise
            else:
                self._size = min(_AT_ONCE, 2 * self._size)
            finally:
                self._written.set()

    def _narrow(self, batch: list[Event], error: BaseException) -> bool:
        """Come closer to what can never be written, or drop it; tell whether that helps."""
        if len(batch) > 1:
            self._waiting.extendleft(reversed(batch))
            self._size = max(1, len(batch) // 8)
            return True
        for event in batch:
            logger.error("audit: an event %s cannot be written: %s", event.name, _reason(error))
            with self._lock:
                self._dropped += 1
        return bool(batch)

    def end(self) -> None:
        """Write the last events, as the process ends."""
        if not self._writing.acquire(timeout=_LAST_PATIENCE):
            logger.error("audit: %d events are lost: writing takes too long", len(self._waiting))
            return
        try:
            self._write_all()
        except Exception as error:
            logger.error("audit: %d events are lost: %s", len(self._waiting), _reason(error))
        finally:
            self._writing.release()


def _is_passing(error: BaseException) -> bool:
    """Tell whether what failed may work another time."""
    if isinstance(error, Exception):
        return isinstance(error, DatabaseUnavailable) and not isinstance(error, Unwritable)
    return True


def _reason(error: BaseException) -> str:
    """Return what is known of an error; any but our own may quote what it failed on."""
    return str(error) if isinstance(error, DatabaseUnavailable) else type(error).__name__


def _write_last(backlog: weakref.ref[Backlog]) -> None:
    ending = backlog()
    if ending is not None:
        ending.end()
