"""Counting is exact under threads and processes, and no store's lock is held by who cannot run."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.flood_stores import Flood, cases, flood, flood_together
from flask_m9m.guard.metrics.counts import Counts
from flask_m9m.processes.shared_directory import SharedDirectory
from flask_m9m.ratelimit import (
    LimitStore,
    MemoryStore,
    RateLimit,
    StoreFailure,
    Want,
    file_calls,
    shared_file,
)
from flask_m9m.ratelimit.file_calls import FileCalls, HeldFileCalls
from flask_m9m.ratelimit.leases import Leases, Reservation
from flask_m9m.ratelimit.shared import SharedStore
from flask_m9m.testing import Clock
from tests.ratelimit.actor import APP, HOURLY, store_in
from tests.ratelimit.test_shared import FakeClock, running
from tests.redis_servers import RedisServer

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no POSIX locks on this system"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # children do nothing else
]

TITLES = [title for title, _ in cases("redis://127.0.0.1")]
held_calls = pytest.mark.skipif(
    file_calls._c_library() is None, reason="the C library cannot be called on this system"
)


@pytest.fixture
def switch_interval() -> Iterator[Callable[[float], None]]:
    """Set how long a thread may run while others want to."""
    before = sys.getswitchinterval()
    yield sys.setswitchinterval
    sys.setswitchinterval(before)


def case_of(title: str, redis_url: str, path: Path) -> Flood:
    case = dict(cases(redis_url))[title]
    return case._replace(store={**case.store, "path": str(path / "limits")})


# Floods


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("threads", [1, 8, 64])
@pytest.mark.parametrize("title", TITLES)
def test_no_number_of_threads_gets_more_than_there_is(
    title: str,
    threads: int,
    redis_server: RedisServer,
    tmp_path: Path,
    switch_interval: Callable[[float], None],
) -> None:
    switch_interval(1e-5)  # threads take turns in the middle of everything
    case = case_of(title, redis_server.url, tmp_path)._replace(threads=threads, seconds=0.2)
    outcome = flood(case)
    limit = case.limit
    allowed = limit.burst + limit.count / limit.period * (outcome.ended - outcome.begun)
    buckets = 2 if outcome.failures and title != "redis is gone" else 1  # a machine too busy
    assert limit.burst <= outcome.admitted <= allowed * buckets
    assert not outcome.failures or "redis" in title


@pytest.mark.parametrize(("title", "threads"), [("shared", 64), ("redis", 8), ("redis is gone", 8)])
def test_no_number_of_processes_gets_more_than_there_is(
    title: str, threads: int, redis_server: RedisServer, tmp_path: Path
) -> None:
    case = case_of(title, redis_server.url, tmp_path)._replace(threads=threads, seconds=0.5)
    result = flood_together(case, 4)
    assert case.limit.burst <= result.admitted <= result.allowed
    assert not result.failures or "redis" in title


def test_many_threads_with_clients_of_their_own_never_fail(tmp_path: Path) -> None:
    store, limit = store_in(tmp_path / "limits"), RateLimit(60, 60, 100_000)
    hits, failures = [0] * 16, []
    until = time.monotonic() + 0.5

    def run(number: int) -> None:
        while time.monotonic() < until:
            try:
                hits[number] += store.hit(limit, f"client {number}").admitted
            except StoreFailure as failure:
                failures.append(failure)
            sum(range(300))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for number, count in enumerate(hits):
        assert limit.burst - count <= store.peek(limit, f"client {number}").remaining
        assert store.peek(limit, f"client {number}").remaining <= limit.burst - count + 1


# Locks and the interpreter lock


def uses_of(tmp_path: Path) -> dict[str, Callable[[], object]]:
    """Return what every request may do with a lock that all threads want."""
    shared, memory, leases, counts = (
        store_in(tmp_path / "limits"),
        MemoryStore(),
        Leases(),
        Counts(),
    )
    leases.add(HOURLY, "client", 1, Reservation(HOURLY.burst, 10**12, 10**12), 0)
    uses: dict[str, Callable[[], object]] = {
        "shared": lambda: shared.hit(HOURLY, "client"),
        "shared, peek": lambda: shared.peek(HOURLY, "client"),
        "shared, refund": lambda: shared.refund(HOURLY, "client"),
        "memory": lambda: memory.hit(HOURLY, "client"),
        "memory, refund": lambda: memory.refund(HOURLY, "client"),
        "leases": lambda: leases.spend(HOURLY, "client", 1, lambda: 0),
        "counts": lambda: counts.add([("a", 1)]),
    }
    for use in uses.values():
        use()
    return uses


USES = ["shared", "shared, peek", "shared, refund", "memory", "memory, refund", "leases", "counts"]


@held_calls
@pytest.mark.parametrize("use", USES)
def test_no_thread_runs_in_the_middle_of_a_hit(
    use: str, tmp_path: Path, switch_interval: Callable[[float], None]
) -> None:
    """Whoever gives the interpreter lock away in there waits for it with a bucket locked."""
    act = uses_of(tmp_path)[use]
    turns, begun, done = [0], threading.Event(), threading.Event()

    def run() -> None:
        while not done.is_set():
            turns[0] += 1
            begun.set()
            time.sleep(0)

    other = threading.Thread(target=run)
    switch_interval(10.0)  # a thread goes on until it gives the interpreter lock away itself
    other.start()
    begun.wait()
    before = turns[0]
    for _ in range(200):
        act()
    after = turns[0]
    done.set()
    other.join()
    assert after == before


@pytest.mark.parametrize("operation", ["hit", "refund", "peek"])
def test_the_memory_store_reads_the_time_under_its_lock(operation: str) -> None:
    """A hit with an older time that is counted later would find the bucket full again."""
    locked = []
    store = MemoryStore(clock=lambda: locked.append(store._lock._lock.locked()) or 5.0)  # type: ignore[func-returns-value]
    getattr(store, operation)(HOURLY, "client")
    assert list(store.spenders()) or operation != "hit"
    assert locked
    assert all(locked)


def test_leases_are_spent_at_the_time_under_their_lock() -> None:
    leases, locked = Leases(), []

    def clock() -> int:
        locked.append(leases._lock._lock.locked())
        return 0

    leases.add(HOURLY, "client", 1, Reservation(9, 10**12, 10**12), 0)
    assert leases.spend(HOURLY, "client", 1, clock)
    assert leases.spend_all([Want(HOURLY, "client")], clock)[0]
    assert locked == [True, True]


# Holders


def test_a_holder_that_goes_on_is_waited_for(tmp_path: Path) -> None:
    """It may have the bucket locked while other threads of its process run."""
    if file_calls._c_library() is None:
        pytest.skip("who goes on is not known on this system")
    store = store_in(tmp_path / "limits")
    store.hit(HOURLY, "client")
    with running("work", tmp_path / "limits", "0.7"):
        assert store.hit(HOURLY, "client").remaining == HOURLY.burst - 2


def test_a_holder_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_file, "_LONGEST_WAIT", 0.3)
    store = store_in(tmp_path / "limits")
    store.hit(HOURLY, "client")
    with (
        running("work", tmp_path / "limits", "30"),
        pytest.raises(StoreFailure, match="another process does not release"),
    ):
        store.hit(HOURLY, "client")


# Systems whose C library is not called


def test_the_standard_library_is_used_on_an_unknown_system_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(file_calls, "platform", SimpleNamespace(machine=lambda: "riscv64"))
    assert file_calls._c_library.__wrapped__() is None
    assert "files are locked through the standard library" in caplog.text
    assert "riscv64" in caplog.text


@held_calls
def test_the_standard_library_is_used_without_ctypes_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert file_calls._c_library.__wrapped__() is None
    assert "files are locked through the standard library" in caplog.text


@held_calls
def test_both_ways_of_locking_keep_each_other_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_in(tmp_path / "limits").prepare([HOURLY])
    children = []
    for calls in (FileCalls, None, FileCalls, None):
        child = os.fork()
        if not child:
            status = 255
            try:
                if calls is not None:
                    monkeypatch.setattr(shared_file, "calls_on", calls)
                    monkeypatch.setattr(shared_file._open_files, "_files", {})
                store = store_in(tmp_path / "limits")
                status = sum(store.hit(HOURLY, "client").admitted for _ in range(60))
                used = type(store._file(HOURLY).calls)
                if used is not (calls or HeldFileCalls):
                    status = 254
            finally:
                os._exit(status)
        children.append(child)
    admitted = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sum(admitted) == HOURLY.burst


@pytest.mark.parametrize("operation", ["hit", "peek"])
def test_the_standard_library_tells_what_is_wrong_with_a_file(
    tmp_path: Path, operation: str
) -> None:
    store = store_in(tmp_path / "limits")
    store.hit(HOURLY, "client")
    file = store._file(HOURLY)
    spare = os.dup(file.descriptor)
    try:
        os.close(file.descriptor)
        with pytest.raises(StoreFailure, match="Bad file descriptor"):
            getattr(store, operation)(HOURLY, "client")
    finally:
        os.dup2(spare, file.descriptor)
    assert store.hit(HOURLY, "client").remaining == HOURLY.burst - 2


# Clocks that step


def stores_with_clocks(tmp_path: Path) -> Iterator[tuple[LimitStore, Callable[[float], None]]]:
    clock, micro = Clock(), FakeClock()

    def advance(seconds: float) -> None:
        micro.now += int(seconds * 1_000_000)

    yield MemoryStore(clock=clock), clock.advance
    yield SharedStore(SharedDirectory(str(tmp_path / "limits"), APP), micro), advance


@pytest.mark.parametrize("step", [0.5, 1.0, 29.0, 30.0, 31.0, 86_400.0])
def test_a_clock_that_steps_back_blocks_nobody_for_longer_than_a_burst_needs(
    tmp_path: Path, step: float
) -> None:
    limit = RateLimit(60, 60, 30)
    for store, advance in stores_with_clocks(tmp_path):
        assert store.hit(limit, "client", limit.burst).admitted
        advance(-step)
        waited = 0
        while not store.hit(limit, "client").admitted:
            hit: Any = store.peek(limit, "client")
            assert hit.next_token <= limit.burst
            advance(1.0)
            waited += 1
        assert waited <= limit.burst
