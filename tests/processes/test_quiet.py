from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from flask_m9m.processes.quiet import Quiet
from flask_m9m.testing import Clock


@pytest.fixture
def quiet(clock: Clock) -> Quiet:
    return Quiet(30.0, clock)


def test_the_first_occurrence_is_logged(quiet: Quiet) -> None:
    assert quiet.record("disk") == 1


def test_then_it_is_quiet_until_the_interval_is_over(quiet: Quiet, clock: Clock) -> None:
    quiet.record("disk")
    counts = []
    for _ in range(60):
        clock.advance(1.0)
        counts.append(quiet.record("disk"))
    assert counts == ([0] * 29 + [30]) * 2


def test_the_interval_counts_from_the_last_line(quiet: Quiet, clock: Clock) -> None:
    quiet.record("disk")
    clock.advance(100.0)
    assert quiet.record("disk") == 1
    clock.advance(29.0)
    assert quiet.record("disk") == 0
    clock.advance(1.0)
    assert quiet.record("disk") == 2


def test_what_is_left_out_is_counted_once(quiet: Quiet, clock: Clock) -> None:
    counts = []
    for _ in range(1_000):
        counts.append(quiet.record("disk"))
        clock.advance(0.7)
    clock.advance(30.0)
    counts.append(quiet.record("disk"))
    assert sum(counts) == 1_001


def test_each_key_is_quiet_alone(quiet: Quiet, clock: Clock) -> None:
    assert [quiet.record(key) for key in ("disk", "net", "disk", "disk", "net")] == [1, 1, 0, 0, 0]
    clock.advance(30.0)
    assert [quiet.record(key) for key in ("net", "disk")] == [2, 3]


def test_a_clock_at_zero_is_no_reason_to_be_quiet(clock: Clock) -> None:
    assert Quiet(30.0, Clock(0.0)).record("disk") == 1


@pytest.mark.parametrize("back", [0.5, 20.0, 86_400.0])
def test_a_clock_that_was_set_back_ends_the_silence(
    quiet: Quiet, clock: Clock, back: float
) -> None:
    quiet.record("disk")
    quiet.record("disk")
    clock.advance(-back)
    assert quiet.record("disk") == 2
    clock.advance(29.0)
    assert quiet.record("disk") == 0
    clock.advance(1.0)
    assert quiet.record("disk") == 2


@pytest.mark.parametrize("threads", [1, 8, 64])
def test_one_of_many_threads_logs_and_all_are_counted(
    quiet: Quiet, clock: Clock, threads: int
) -> None:
    barrier = threading.Barrier(threads)
    counts: list[int] = []

    def work() -> None:
        for _ in range(5):
            barrier.wait(60)
            counts.extend([quiet.record("disk") for _ in range(100)])
            if barrier.wait(60) == 0:
                clock.advance(30.0)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert len(counts) == threads * 500
    each = threads * 100
    assert sorted(filter(None, counts)) == [1, *[each] * 4]
    assert quiet.record("disk") == each  # those of the last round, and this one


def test_a_thread_that_was_slow_to_record_does_not_log_again() -> None:
    """Two threads read a clock that moves between them; the earlier one comes second."""
    clock = Clock()
    quiet = Quiet(30.0, clock)
    counts: list[int] = []
    slow = threading.Thread(target=lambda: counts.append(quiet.record("disk")))
    with quiet._lock:
        slow.start()
        clock.advance(1.0)
        quiet._logged["disk"] = (clock(), 0)
    slow.join()
    assert counts == [0]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_goes_on_from_where_its_parent_was(quiet: Quiet, clock: Clock) -> None:
    quiet.record("disk")
    quiet.record("disk")
    with quiet._lock:  # held by a thread that the child does not have
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            silent = quiet.record("disk") == 0
            clock.advance(30.0)
            os._exit(0 if silent and quiet.record("disk") == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    clock.advance(30.0)
    assert quiet.record("disk") == 2
