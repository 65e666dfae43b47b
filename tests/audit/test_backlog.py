"""The backlog: bounded, in order, patient, and with nobody else's events."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest

from flask_m9m.audit import Event, EventName
from flask_m9m.audit.backlog import Backlog
from flask_m9m.errors import DatabaseUnavailable, Unwritable
from flask_m9m.testing import Clock


def event(number: int) -> Event:
    return Event(f"event-{number}", 0.0)


class Sink:
    """Takes events, or fails while it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[Event]] = []
        self.failing = False
        self.asked = threading.Event()
        self.taken = threading.Event()

    def __call__(self, events: Sequence[Event]) -> None:
        self.asked.set()
        if self.failing:
            raise DatabaseUnavailable("away")
        self.batches.append(list(events))
        self.taken.set()

    @property
    def names(self) -> list[str]:
        return [one.name for batch in self.batches for one in batch]


@pytest.fixture
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no thread start, as when the interpreter is going down."""

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)


@pytest.fixture
def hourly(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Backlog, Sink]]:
    """A backlog whose thread writes by itself once an hour; it is woken to end with the test."""
    monkeypatch.setattr("flask_m9m.audit.backlog._INTERVAL", 3_600.0)
    sink = Sink()
    backlog = Backlog(sink)
    yield backlog, sink
    backlog.flush()
    thread = backlog._thread
    if thread is not None:
        backlog._many.set()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def _no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing to the end of the tests' own process."""
    monkeypatch.setattr("flask_m9m.audit.backlog.atexit.register", lambda *args: None)


@pytest.mark.usefixtures("_no_threads")
def test_events_are_written_in_the_order_in_which_they_came() -> None:
    sink = Sink()
    backlog = Backlog(sink)
    for number in range(2_500):
        backlog.add(event(number))
    backlog.flush()
    assert sink.names == [f"event-{number}" for number in range(2_500)]
    assert [len(batch) for batch in sink.batches] == [1_000, 1_000, 500]


@pytest.mark.usefixtures("_no_threads")
def test_no_more_wait_than_are_allowed_and_the_rest_is_counted(clock: Clock) -> None:
    sink = Sink()
    backlog = Backlog(sink, clock, most=3)
    for number in range(10):
        backlog.add(event(number))
    clock.advance(5)
    backlog.flush()
    *kept, dropped = sink.batches[0]
    assert [one.name for one in kept] == ["event-0", "event-1", "event-2"]
    assert (dropped.name, dropped.details) == (EventName.EVENTS_DROPPED, {"count": 7})
    assert dropped.at == clock()
    backlog.add(event(10))
    backlog.flush()
    assert [one.name for one in sink.batches[1]] == ["event-10"]


@pytest.mark.usefixtures("_no_threads")
def test_what_was_dropped_is_counted_through_failures() -> None:
    sink = Sink()
    backlog = Backlog(sink, most=2)
    sink.failing = True
    for number in range(5):
        backlog.add(event(number))
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            backlog.flush()
    backlog.add(event(5))
    sink.failing = False
    backlog.flush()
    assert sink.names == ["event-0", "event-1", "events_dropped"]
    assert sink.batches[0][-1].details == {"count": 4}


@pytest.mark.usefixtures("_no_threads")
def test_events_that_could_not_be_written_wait_and_keep_their_order() -> None:
    sink = Sink()
    backlog = Backlog(sink)
    sink.failing = True
    for number in range(1_500):
        backlog.add(event(number))
    with pytest.raises(DatabaseUnavailable):
        backlog.flush()
    backlog.add(event(1_500))
    sink.failing = False
    backlog.flush()
    assert sink.names == [f"event-{number}" for number in range(1_501)]


def test_a_thread_writes_what_comes_and_ends_when_nothing_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_m9m.audit.backlog._INTERVAL", 0.01)
    sink = Sink()
    backlog = Backlog(sink)
    for number in range(2):
        sink.taken.clear()
        backlog.add(event(number))
        thread = backlog._thread
        assert thread is not None
        assert sink.taken.wait(10)
        thread.join(10)
        assert not thread.is_alive()
    assert sink.names == ["event-0", "event-1"]


def test_many_at_once_do_not_wait_for_the_second_to_end(hourly: tuple[Backlog, Sink]) -> None:
    backlog, sink = hourly
    for number in range(1_001):
        backlog.add(event(number))
    assert sink.taken.wait(10)


def test_a_thread_tries_again_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flask_m9m.audit.backlog._INTERVAL", 0.01)
    sink = Sink()
    backlog = Backlog(sink)
    sink.failing = True
    backlog.add(event(0))
    for _ in range(3):
        sink.asked.clear()
        assert sink.asked.wait(10)
    sink.failing = False
    assert sink.taken.wait(10)
    assert sink.names == ["event-0"]
    errors = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert errors == ["audit: 1 events wait to be written: database: away"]


@pytest.mark.usefixtures("_no_threads")
def test_a_thread_that_cannot_start_breaks_nothing_and_the_end_writes_all() -> None:
    sink = Sink()
    backlog = Backlog(sink)
    backlog.add(event(0))
    backlog.add(event(1))
    assert sink.batches == []
    backlog.end()
    assert sink.names == ["event-0", "event-1"]


@pytest.mark.usefixtures("_no_threads")
def test_what_cannot_be_written_at_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    backlog = Backlog(sink)
    sink.failing = True
    backlog.add(event(0))
    backlog.end()
    assert [one.getMessage() for one in caplog.records] == [
        "audit: 1 events are lost: database: away"
    ]


def test_an_end_does_not_wait_for_ever_for_a_write_that_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flask_m9m.audit.backlog._LAST_PATIENCE", 0.01)
    backlog = Backlog(Sink())
    with backlog._writing:
        backlog.end()
    assert "another write takes too long" in caplog.text


def test_64_threads_lose_and_repeat_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.audit.backlog._INTERVAL", 0.001)
    sink = Sink()
    backlog = Backlog(sink)
    begin = threading.Barrier(64)

    def add(first: int) -> None:
        begin.wait()
        for number in range(first, first + 200):
            backlog.add(event(number))

    adding = [threading.Thread(target=add, args=(number * 200,)) for number in range(64)]
    for one in adding:
        one.start()
    for one in adding:
        one.join()
    backlog.flush()
    assert sorted(sink.names) == sorted(f"event-{number}" for number in range(64 * 200))
    for thread in range(64):
        own = {f"event-{number}" for number in range(thread * 200, thread * 200 + 200)}
        mine = [int(name.removeprefix("event-")) for name in sink.names if name in own]
        assert mine == sorted(mine)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_none_of_its_parents_events_and_writes_its_own(
    hourly: tuple[Backlog, Sink],
) -> None:
    backlog, sink = hourly
    backlog.add(event(0))
    with backlog._writing, backlog._lock:  # as if a thread held them just now
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            backlog.add(event(1))
            backlog.flush()
            os._exit(0 if sink.names == ["event-1"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    backlog.flush()
    assert sink.names == ["event-0"]


@pytest.mark.usefixtures("_no_threads")
@pytest.mark.parametrize("error", [Unwritable("no such character"), ValueError("whatever")])
def test_an_event_that_can_never_be_written_is_counted_and_holds_up_no_other(
    error: Exception,
) -> None:
    written: list[Event] = []

    def write(events: Sequence[Event]) -> None:
        if any(one.name in ("event-7", "event-700") for one in events):
            raise error
        written.extend(events)

    backlog = Backlog(write)
    for number in range(1_500):
        backlog.add(event(number))
    backlog.flush()
    counts = [one.details["count"] for one in written if one.name == EventName.EVENTS_DROPPED]
    assert sum(counts) == 2
    names = [one.name for one in written if one.name != EventName.EVENTS_DROPPED]
    assert names == [f"event-{number}" for number in range(1_500) if number not in (7, 700)]


def test_a_crowd_waits_for_the_thread_and_nothing_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flask_m9m.audit.backlog._CROWDED", 100)
    monkeypatch.setattr("flask_m9m.audit.backlog._AT_ONCE", 50)
    sink = Sink()
    backlog = Backlog(sink, most=200)
    for number in range(5_000):
        backlog.add(event(number))
    backlog.flush()
    assert sink.names == [f"event-{number}" for number in range(5_000)]
