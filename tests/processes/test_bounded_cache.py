from __future__ import annotations

import os
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable

import pytest

from flask_m9m.processes.bounded_cache import BoundedCache, keep_newest

forks = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
quiet_about_forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def filled(capacity: int, count: int) -> BoundedCache[int, str]:
    cache: BoundedCache[int, str] = BoundedCache(capacity)
    for key in range(count):
        cache.keep(key, f"value {key}")
    return cache


def found(cache: BoundedCache[int, str], keys: range) -> list[int]:
    return [key for key in keys if cache.find(key) is not None]


def run(threads: int, work: Callable[[int], object]) -> None:
    """Run the work in so many threads, which begin together; raise what one of them raised."""
    barrier, errors = threading.Barrier(threads), list[BaseException]()

    def begin(number: int) -> None:
        try:
            barrier.wait(60)
            work(number)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=begin, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]


def test_a_value_is_found_under_its_key_alone() -> None:
    cache = filled(4, 2)
    assert (cache.find(0), cache.find(1), cache.find(2)) == ("value 0", "value 1", None)
    assert len(cache) == 2


def test_a_full_cache_drops_the_entry_that_was_kept_first() -> None:
    cache = filled(3, 5)
    assert found(cache, range(5)) == [2, 3, 4]


def test_an_entry_that_is_kept_again_is_the_newest_and_drops_no_other() -> None:
    cache = filled(3, 3)
    cache.keep(0, "again")
    assert found(cache, range(3)) == [0, 1, 2]
    cache.keep(3, "value 3")
    assert found(cache, range(4)) == [0, 2, 3]
    assert cache.find(0) == "again"


def test_finding_an_entry_does_not_make_it_newer() -> None:
    cache = filled(2, 2)
    assert cache.find(0) == "value 0"
    cache.keep(2, "value 2")
    assert found(cache, range(3)) == [1, 2]


def test_stale_values_are_dropped_and_no_others() -> None:
    cache = filled(8, 6)
    cache.drop(lambda value: value in ("value 1", "value 4"))
    assert found(cache, range(6)) == [0, 2, 3, 5]
    cache.drop(lambda value: False)
    assert len(cache) == 4


def test_a_cleared_cache_is_empty_and_can_be_filled_again() -> None:
    cache = filled(3, 3)
    find = cache.find
    cache.clear()
    assert (len(cache), find(0)) == (0, None)
    cache.keep(7, "value 7")
    assert find(7) == "value 7"


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_cache_has_room_for_something(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, found {capacity}"):
        BoundedCache(capacity)


def test_a_cache_of_one_entry_has_the_last_one() -> None:
    assert found(filled(1, 9), range(9)) == [8]


def test_finding_calls_no_python_function() -> None:
    called = list[object]()
    cache = filled(2, 2)
    sys.setprofile(lambda frame, event, _: called.append(frame) if event == "call" else None)
    try:
        cache.find(1)
    finally:
        sys.setprofile(None)
    assert not called


@pytest.mark.parametrize("threads", [1, 8, 64])
def test_threads_never_see_more_entries_than_there_is_room_for(threads: int) -> None:
    cache: BoundedCache[int, str] = BoundedCache(50)

    def work(number: int) -> None:
        for step in range(6_400 // threads):
            key = (number * 37 + step) % 200
            cache.keep(key, f"value {key}")
            assert len(cache) <= 50
            assert cache.find((key + 100) % 200) in (None, f"value {(key + 100) % 200}")
            if step % 40 == 39:
                cache.drop(lambda value: value.endswith("7"))

    run(threads, work)
    for key in range(1_000, 1_100):
        cache.keep(key, f"value {key}")
    assert len(cache) == 50
    assert found(cache, range(1_100)) == list(range(1_050, 1_100))


@pytest.mark.parametrize("threads", [1, 8, 64])
def test_threads_lose_no_entry_that_there_is_room_for(threads: int) -> None:
    cache: BoundedCache[int, str] = BoundedCache(6_400)
    each = 6_400 // threads

    def work(number: int) -> None:
        for key in range(number * each, (number + 1) * each):
            cache.keep(key, f"value {key}")

    run(threads, work)
    assert found(cache, range(6_400)) == list(range(6_400))


def in_child(check: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            os._exit(0 if check() else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@forks
@quiet_about_forks
def test_a_child_has_a_copy_of_its_own_although_a_thread_held_the_lock() -> None:
    cache = filled(3, 3)

    def check() -> bool:
        copied = found(cache, range(4)) == [0, 1, 2]
        cache.keep(3, "value 3")
        return copied and found(cache, range(4)) == [1, 2, 3]

    with cache._lock:
        assert in_child(check)
    assert found(cache, range(4)) == [0, 1, 2]


@forks
@quiet_about_forks
def test_a_child_keeps_the_bound_although_threads_filled_the_cache_during_the_fork() -> None:
    cache: BoundedCache[int, str] = BoundedCache(20)
    ended = threading.Event()

    def fill(number: int) -> None:
        while not ended.is_set():
            for key in range(number, 1_000, 8):
                cache.keep(key, "")

    def check() -> bool:
        bounded = len(cache) <= 20
        for key in range(2_000, 2_100):
            cache.keep(key, "")
            bounded = bounded and len(cache) <= 20
        return bounded and found(cache, range(2_100)) == list(range(2_080, 2_100))

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert all(in_child(check) for _ in range(10))
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_keeping_the_newest_returns_what_was_dropped() -> None:
    entries: OrderedDict[str, int] = OrderedDict()
    assert keep_newest(entries, "a", 1, 2) is None
    assert keep_newest(entries, "b", 2, 2) is None
    assert keep_newest(entries, "a", 3, 2) is None
    assert keep_newest(entries, "c", 4, 2) == ("b", 2)
    assert list(entries.items()) == [("a", 3), ("c", 4)]


def test_there_are_never_too_many_entries_not_even_for_a_moment() -> None:
    lengths = list[int]()

    class Watched(OrderedDict[int, int]):
        def __setitem__(self, key: int, value: int) -> None:
            super().__setitem__(key, value)
            lengths.append(len(self))

    entries = Watched()
    for key in range(10):
        keep_newest(entries, key, key, 3)
    assert max(lengths) == 3
