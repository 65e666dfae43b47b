"""The fair lock: first come, first served; nobody waits for ever, and no child waits at all."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest

from flask_m9m.processes.fair_lock import FairLock


def waiting(lock: FairLock, count: int) -> None:
    """Wait until so many threads wait for a lock."""
    until = time.monotonic() + 30
    while len(lock._waiting) < count:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_threads_get_it_in_the_order_in_which_they_asked() -> None:
    lock, served, threads = FairLock(), [], []
    assert lock.acquire(0)

    def use(number: int) -> None:
        assert lock.acquire(30)
        served.append(number)
        lock.release()

    for number in range(20):
        threads.append(threading.Thread(target=use, args=(number,)))
        threads[-1].start()
        waiting(lock, number + 1)
    lock.release()
    for thread in threads:
        thread.join()
    assert served == list(range(20))
    assert lock.acquire(0)


def test_its_last_holder_does_not_get_it_before_those_that_wait() -> None:
    lock, served = FairLock(), []
    assert lock.acquire(0)

    def use() -> None:
        assert lock.acquire(30)
        served.append("the other")
        lock.release()

    other = threading.Thread(target=use)
    other.start()
    waiting(lock, 1)
    lock.release()
    assert lock.acquire(30)
    served.append("the last holder")
    other.join()
    assert served == ["the other", "the last holder"]


def test_who_gives_up_gets_it_no_more_and_is_in_nobodys_way() -> None:
    lock = FairLock()
    assert lock.acquire(0)
    assert not lock.acquire(0)
    assert not lock.acquire(0.01)
    lock.release()
    assert lock.acquire(0)


@pytest.mark.parametrize("count", [8, 64])
def test_one_thread_at_a_time_holds_it(count: int) -> None:
    lock, begin = FairLock(), threading.Barrier(count)
    total = 0

    def use() -> None:
        nonlocal total
        begin.wait()
        for number in range(50):
            if lock.acquire(30 if number % 5 else 0):
                seen = total
                time.sleep(0)
                total = seen + 1
                lock.release()

    threads = [threading.Thread(target=use) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 40 * count <= total <= 50 * count
    assert lock.acquire(0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_it_is_free_in_a_child() -> None:
    lock = FairLock()
    assert lock.acquire(0)
    child = os.fork()
    if child == 0:
        os._exit(not lock.acquire(0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
