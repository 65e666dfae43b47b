"""Four workers that count, of which some are killed: nothing is lost, and no file stays."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as families

from tests.gunicorn import ROOT, gunicorn

from .conftest import WORKERS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[int]:
    """Run four workers; they have ended when this does."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path[1:]))}
    workers = ["-w", str(WORKERS), "--threads", "2"]
    app = f"tests.processes.metrics_app:create({str(directory)!r})"
    with gunicorn(directory, app, *workers, *options, environ=environ) as port:
        yield port


def get(port: int, path: str) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    finally:
        connection.close()


def answered(port: int) -> int:
    """Return how many requests have been answered, by a scrape."""
    for family in families(get(port, "/metrics")):
        for sample in family.samples:
            if sample.name == "m9m_requests_total" and sample.labels["outcome"] == "answered":
                return int(sample.value)
    return 0


def every_worker(port: int) -> tuple[set[int], int]:
    """Ask until each worker has answered; return their ids and the number of requests."""
    found: set[int] = set()
    for number in range(1, 2_000):
        found.add(int(get(port, "/pid")))
        if len(found) >= WORKERS:
            return found, number
    raise AssertionError(found)


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["apart", "preload"])
def test_whichever_worker_answers_adds_up_all(tmp_path: Path, options: tuple[str, ...]) -> None:
    with serving(tmp_path, *options) as port:
        workers, asked = every_worker(port)
        for scrapes in range(10):
            assert answered(port) == asked + scrapes
        asked += 10
        os.kill(next(iter(workers)), signal.SIGKILL)
        assert answered(port) == asked
        _, more = every_worker(port)
        asked += 1 + more
        assert answered(port) == asked
        asked += 1
    with serving(tmp_path, *options) as port:  # another start goes on where that one ended
        assert answered(port) == asked
        assert len(list((tmp_path / "shared").glob("*.counts"))) == 1
        assert not list((tmp_path / "shared").glob(".*"))


def test_scrapes_under_load_while_workers_are_killed_never_go_back(tmp_path: Path) -> None:
    done, counts = threading.Event(), [0] * 3

    def ask(number: int, port: int) -> None:
        while not done.is_set():
            try:
                get(port, "/pid")
            except (OSError, HTTPException):
                continue
            counts[number] += 1

    with serving(tmp_path) as port:
        get(port, "/pid")
        threads = [threading.Thread(target=ask, args=(n, port)) for n in range(len(counts))]
        for thread in threads:
            thread.start()
        seen, kills, until = [0], 0, time.monotonic() + 4.0
        while time.monotonic() < until:
            try:
                seen.append(answered(port))
                if len(seen) % 20 == 0:
                    os.kill(int(get(port, "/pid")), signal.SIGKILL)
                    kills += 1
            except (OSError, HTTPException):
                continue
        done.set()
        for thread in threads:
            thread.join()
        total = answered(port)
    assert kills >= 1
    assert seen == sorted(seen)
    # What was counted and not answered for its worker was killed: at most what one had in hand.
    least = sum(counts) + 1
    assert least <= total <= least + len(seen) + kills * (1 + len(counts) + 4)
    assert len(list((tmp_path / "shared").glob("*.counts"))) <= WORKERS + kills
