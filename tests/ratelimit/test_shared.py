from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from flask_m9m.processes.boot_clock import boot_clock
from flask_m9m.processes.shared_directory import SharedDirectory
from flask_m9m.ratelimit import RateLimit, StoreFailure, shared_file
from flask_m9m.ratelimit.limit_files import BUCKETS, HEADER, SLOTS
from flask_m9m.ratelimit.shared import SharedStore
from flask_m9m.ratelimit.shared_file import PATIENCE, Place, SharedFile, open_file
from tests.ratelimit.actor import APP, HOURLY, files_in, store_in

ROOT = Path(__file__).parents[2]
SECOND = 1_000_000
CAPACITY = BUCKETS * SLOTS

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no POSIX locks on this system"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # children do nothing else
]


class FakeClock:
    """Microseconds since boot that stand still."""

    def __init__(self) -> None:
        self.now = 10**12

    def __call__(self) -> int:
        return self.now


def actor(*arguments: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "tests.ratelimit.actor", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run an actor that says when it has begun, and end it."""
    process = actor(*arguments)
    assert process.stdout is not None
    try:
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def place(path: Path, client: str = "client") -> tuple[SharedFile, Place]:
    file = open_file(files_in(path), HOURLY)
    return file, file.place(client)


def in_bucket_of(file: SharedFile, client: str) -> Iterator[str]:
    """Return clients that share a client's bucket; only who has the file's key can find them."""
    offset = file.place(client).offset
    return (name for name in map(str, count()) if file.place(name).offset == offset)


def test_it_counts_as_the_algorithm_does(tmp_path: Path) -> None:
    clock = FakeClock()
    store = SharedStore(SharedDirectory(str(tmp_path / "limits"), APP), clock)
    limit = RateLimit(60, 60, 3)
    hits = [store.hit(limit, "a") for _ in range(4)]
    assert [hit.admitted for hit in hits] == [True, True, True, False]
    assert [hit.remaining for hit in hits] == [2, 1, 0, 0]
    assert hits[-1].next_token == 1
    assert store.hit(limit, "b").remaining == 2
    clock.now += SECOND
    assert store.peek(limit, "a").remaining == 1
    assert store.hit(limit, "a", 1).admitted
    assert not store.hit(limit, "a", 1).admitted
    store.refund(limit, "a", 2)
    assert store.peek(limit, "a").remaining == 2
    store.refund(limit, "a", 3)
    assert store.peek(limit, "a").remaining == 3
    store.refund(limit, "nobody", 3)
    store.hit(limit, "a", 3)
    assert not store.peek(limit, "a").admitted
    store.reset(limit, "a")
    assert store.peek(limit, "a").remaining == 3


def test_all_threads_of_all_processes_together_get_just_what_there_is(tmp_path: Path) -> None:
    processes = [actor("count", tmp_path / "limits", 8, 50) for _ in range(4)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert not any(errors for _, errors in answers)
    assert sum(int(admitted) for admitted, _ in answers) == HOURLY.burst


def test_the_clock_is_the_same_in_every_process() -> None:
    code = "from flask_m9m.processes.boot_clock import boot_clock; print(boot_clock())"
    before = boot_clock()
    there = int(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT))
    assert before < there < boot_clock()


def test_a_time_further_ahead_than_the_limit_allows_is_a_free_slot(tmp_path: Path) -> None:
    clock = FakeClock()
    store = SharedStore(SharedDirectory(str(tmp_path / "limits"), APP), clock)
    limit = RateLimit(60, 60, 3)
    for _ in range(4):
        store.hit(limit, "a")
    clock.now -= 3_600 * SECOND
    assert store.hit(limit, "a").remaining == 2


def test_in_a_full_bucket_the_earliest_gives_way_and_nobody_at_the_limit(tmp_path: Path) -> None:
    clock = FakeClock()
    store = SharedStore(SharedDirectory(str(tmp_path / "limits"), APP), clock)
    file, _ = place(tmp_path / "limits")
    names = in_bucket_of(file, "client")
    limited = [next(names) for _ in range(SLOTS - 1)]
    for name in limited:
        assert store.hit(HOURLY, name, HOURLY.burst).admitted
    least = next(names)
    assert store.hit(HOURLY, least).admitted
    newcomer = next(names)
    assert store.hit(HOURLY, newcomer, HOURLY.burst).admitted  # in the place of `least`
    assert store.peek(HOURLY, least).remaining == HOURLY.burst
    assert not any(store.peek(HOURLY, name).admitted for name in (*limited, newcomer))
    refused = store.hit(HOURLY, next(names))
    assert not refused.admitted
    assert refused.next_token == 36
    clock.now += 36 * SECOND
    assert store.hit(HOURLY, next(names)).admitted


def test_a_flood_of_addresses_frees_nobody_and_takes_no_more_space(tmp_path: Path) -> None:
    clock = FakeClock()
    store = SharedStore(SharedDirectory(str(tmp_path / "limits"), APP), clock)
    limit = RateLimit(1, 60, 1)
    store.hit(limit, "victim")
    size = sum(path.stat().st_size for path in (tmp_path / "limits").iterdir())
    for number in range(20_000):
        clock.now += 100
        store.hit(limit, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert not store.hit(limit, "victim").admitted
    assert sum(path.stat().st_size for path in (tmp_path / "limits").iterdir()) == size
    assert size == HEADER + CAPACITY * 16


def test_it_tells_who_has_spent_and_by_what_it_knows_them(tmp_path: Path) -> None:
    store = store_in(tmp_path / "limits")
    store.hit(HOURLY, "203.0.113.7", 60)
    store.hit(RateLimit(5, 60, 5, "other", "route x"), "203.0.113.7", 1)
    found = {one.limit.scope: one for one in store_in(tmp_path / "limits").spenders()}
    assert set(found) == {"hourly", "route x"}
    assert found["hourly"].hit.remaining == 40
    assert found["hourly"].client_id == store.client_id(HOURLY, "203.0.113.7")
    assert found["hourly"].client_id != found["route x"].client_id


def test_a_name_of_any_characters_is_a_client(tmp_path: Path) -> None:
    store = store_in(tmp_path / "limits")
    for name in ("", "\0", "\udcff", "é" * 100_000, "a\nb"):
        assert store.hit(HOURLY, name).remaining == HOURLY.burst - 1


def test_only_one_thread_is_at_a_bucket(tmp_path: Path) -> None:
    """The kernel gives a process a lock as often as it asks."""
    store = store_in(tmp_path / "limits")
    file, held = place(tmp_path / "limits")
    file.lock(held)
    failures: list[StoreFailure] = []

    def hit() -> None:
        try:
            store.hit(HOURLY, "client")
        except StoreFailure as failure:
            failures.append(failure)

    thread = threading.Thread(target=hit)
    thread.start()
    thread.join()
    file.unlock(held)
    assert len(failures) == 1
    assert store.hit(HOURLY, "client").remaining == HOURLY.burst - 1


def test_a_turn_that_nobody_gives_back_is_taken_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal's handler that raises may end a hit before the block that gives it back."""
    monkeypatch.setattr(shared_file, "_LOCKS_LOST_AFTER", 0.3)
    store = store_in(tmp_path / "limits")
    _, held = place(tmp_path / "limits")
    held.turn.acquire()
    failures = 0
    while failures < 10:
        try:
            store.hit(HOURLY, "client")
            break
        except StoreFailure:
            failures += 1
    assert 2 <= failures <= 4


def test_the_time_is_read_when_it_is_a_hits_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what another process wrote meanwhile would look as if it were too far ahead."""
    clock, later = FakeClock(), FakeClock()
    later.now += 100
    directory = SharedDirectory(str(tmp_path / "limits"), APP)
    store, other = SharedStore(directory, clock), SharedStore(directory, later)
    store.hit(HOURLY, "client")
    lock = SharedFile.lock

    def lock_after_another(self: SharedFile, *arguments: Any) -> None:
        monkeypatch.setattr(SharedFile, "lock", lock)
        other.hit(HOURLY, "client", HOURLY.burst - 1)
        clock.now = later.now
        lock(self, *arguments)

    monkeypatch.setattr(SharedFile, "lock", lock_after_another)
    assert not store.hit(HOURLY, "client").admitted


@pytest.mark.parametrize("operation", ["refund", "peek", "reset"])
def test_everything_waits_for_its_turn(tmp_path: Path, operation: str) -> None:
    store = store_in(tmp_path / "limits")
    store.hit(HOURLY, "client")
    with (
        running("hold", tmp_path / "limits", "wait"),
        pytest.raises(StoreFailure, match="another process does not release"),
    ):
        getattr(store, operation)(HOURLY, "client")


@pytest.mark.parametrize("way", ["wait", "stop"])
def test_a_holder_that_does_not_go_on_is_a_failure_soon_and_its_death_frees_the_bucket(
    tmp_path: Path, way: str
) -> None:
    store = store_in(tmp_path / "limits")
    store.hit(HOURLY, "client")
    with running("hold", tmp_path / "limits", way):
        begun = time.monotonic()
        with pytest.raises(StoreFailure, match="another process does not release"):
            store.hit(HOURLY, "client")
        assert PATIENCE <= time.monotonic() - begun < 10 * PATIENCE
        elsewhere = next(
            name
            for name in map(str, count())
            if place(tmp_path / "limits", name)[1].turn is not place(tmp_path / "limits")[1].turn
        )
        assert store.hit(HOURLY, elsewhere).admitted
    assert store.hit(HOURLY, "client").remaining == HOURLY.burst - 2


def test_a_lock_outlives_whatever_else_the_process_does_with_the_file(tmp_path: Path) -> None:
    """Closing any descriptor of a file drops the process's locks on it."""
    path = tmp_path / "limits"
    file, held = place(path)
    file.lock(held)
    second = SharedStore(SharedDirectory(str(path), APP))
    second.prepare([HOURLY])
    list(second.spenders())
    assert second.client_id(HOURLY, "client")
    del second
    holder = actor("hold", path, "wait")
    _, errors = holder.communicate(timeout=30)
    assert "another process does not release" in errors
    file.unlock(held)
    with running("hold", path, "wait"):
        pass


def test_a_child_does_not_wait_for_a_thread_that_its_parent_had(tmp_path: Path) -> None:
    store = store_in(tmp_path / "limits")
    _, held = place(tmp_path / "limits")
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        held.turn.acquire()
        taken.set()
        done.wait(30)
        held.turn.release()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait(30)
    child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if store.hit(HOURLY, "client").remaining == HOURLY.burst - 1 else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert status == 0
    assert store.hit(HOURLY, "client").remaining == HOURLY.burst - 2


def test_parent_and_child_keep_each_other_out(tmp_path: Path) -> None:
    store = store_in(tmp_path / "limits")
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            status = 255
            try:
                status = sum(store.hit(HOURLY, "client").admitted for _ in range(60))
            finally:
                os._exit(status)
        children.append(child)
    admitted = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sum(admitted) == HOURLY.burst


def test_a_hundred_kills_in_the_middle_of_hits_block_nobody(tmp_path: Path) -> None:
    store = store_in(tmp_path / "limits")
    limit = RateLimit(60, 60, 1_000_000)
    for _ in range(25):
        children = [fork_flood(store, limit) for _ in range(4)]
        time.sleep(random.uniform(0, 0.02))
        for child in children:
            with suppress(StoreFailure):  # one may be without a processor in the middle of a hit
                store.hit(limit, "3")
            os.kill(child, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        for number in range(4):
            before = store.peek(limit, str(number)).remaining
            assert store.hit(limit, str(number)).remaining == before - 1
    assert store.peek(limit, "nobody").remaining == limit.burst


def fork_flood(store: SharedStore, limit: RateLimit) -> int:
    """Start a process that does nothing but hit, and return its id."""
    child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            while True:
                for number in range(4):
                    with suppress(StoreFailure):
                        store.hit(limit, str(number))
        finally:
            os._exit(1)
    return child
