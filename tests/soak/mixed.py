"""A server under mixed load: memory, descriptors and latency stay flat.

`flask m9m serve` with two workers serves an app. Clients log in, refresh, make and use keys, store
credentials, are refused and limited, send preflights and flood. A witness asks every 50 ms on one
connection. After a warm-up of a fifth, in which caches fill, the last fifth is compared with the
second. The command prints a table, and exits 1 if something has grown, a worker has ended or any
answer was not the expected one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from tests.wsgi.server.conftest import Server

from .clients import ORIGIN, PASSWORD, USERS, WORK, Client, Tokens, bearer

SECRET = "a secret of the soak, which is nobody else's at all"
SETTINGS: dict[str, Any] = {
    "server": {"workers": 2, "threads": 4, "trusted_proxies": ["127.0.0.1"]},
    "security": {
        "jwt": {"secret": SECRET},
        "cors": {"allowed_origins": [ORIGIN], "allow_credentials": True},
        "api_keys": {"max_per_owner": 10_000},
    },
    "credentials": {"encryption_key": "07" * 32, "max_per_owner": 10_000},
    "performance": {
        "rate_limit": {"enabled": True, "requests_per_minute": 60_000, "burst": 10_000}
    },
    "audit": {"sinks": ["log", "database"]},
    "api": {"enabled": True},
}
APP = f"""\
import os
from flask import Flask, request
from flask_m9m import M9M, rate_limit, require_auth

app = Flask(__name__)
m9m = M9M(app)
m9m.credential_checker("slackApi")(lambda credential: True)

@app.get("/scheme")
def scheme(): return {{"worker": os.getpid()}}

@app.get("/items")
@require_auth
def items(): return {{"worker": os.getpid()}}

@app.get("/limited")
@rate_limit("20/second", key=lambda: "all")
def limited(): return "ok"

@app.post("/upload")
def upload(): return {{"octets": len(request.get_data())}}

if os.environ.get("SOAK_USERS"):
    with app.app_context():
        for number in range({USERS}):
            m9m.users.create(f"user{{number}}", {PASSWORD!r}, scopes=["items"])
"""

SMALL_GROWTH = 4.0  # MiB of a worker
SMALL_DELAY = 5.0  # ms


class Moment(NamedTuple):
    """What was measured at a moment.

    Attributes:
        second: since the beginning.
        memory: of the worker with the most, in MiB that are its own.
        descriptors: of the worker with the most.
        typical: the median of the witness's latencies since the moment before, in ms.
        slow: their 95th percentile.
        answers: to all clients, since the moment before.
    """

    second: float
    memory: float
    descriptors: int
    typical: float
    slow: float
    answers: int


class Witness(threading.Thread):
    """Measures how long an authenticated request takes."""

    def __init__(self, port: int, ended: threading.Event) -> None:
        super().__init__(name="witness", daemon=True)
        self._client = Client(lambda _: None, port, 0, ended)
        self._ended = ended
        self._latencies: list[float] = []
        self.faults = self._client.faults

    def run(self) -> None:
        token = bearer(self._client.log_in()["token"])
        while not self._ended.wait(0.05):
            began = time.perf_counter()
            try:
                self._client.ask("GET", "/items", 200, **token)
            except (OSError, HTTPException) as error:
                self._client.forget()
                self.faults[f"witness: {type(error).__name__}"] += 1
            self._latencies.append((time.perf_counter() - began) * 1_000)
        self._client.forget()

    def take(self) -> list[float]:
        """Return the latencies since the last call."""
        taken, self._latencies = self._latencies, []
        return taken


def workers_of(parent: int) -> list[int]:
    """Return the ids of a process's children."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def workers_when_started(parent: int) -> list[int]:
    """Return the ids of the workers once all have been started; the first one answers earlier."""
    until = time.monotonic() + 30
    while len(workers := workers_of(parent)) < SETTINGS["server"]["workers"]:
        if time.monotonic() > until:
            raise TimeoutError("not all workers were started")
        time.sleep(0.05)
    return workers


def memory_of(pid: int) -> float:
    """Return the memory of a process that no file backs, in MiB.

    Each password that is being verified takes memory for a moment: the least of a few counts.
    """
    return min(_memory_now(pid) for _ in range(5) if time.sleep(0.05) is None)


def _memory_now(pid: int) -> float:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(fields["RssAnon"].split()[0]) / 1_024


def descriptors_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextmanager
def loading(port: int) -> Iterator[tuple[Witness, list[Client]]]:
    """Keep clients of every kind at work."""
    ended = threading.Event()
    work = (*WORK, (Tokens(SECRET), 0.05))
    clients = [Client(one, port, pause, ended) for one, pause in work]
    witness = Witness(port, ended)
    for thread in (witness, *clients):
        thread.start()
    try:
        yield witness, clients
    finally:
        ended.set()
        for thread in (witness, *clients):
            thread.join(60)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[int, int]]:
    """Serve the app; yield the server's port and process id."""
    server = Server(folder)
    (folder / "app.py").write_text(APP)
    server.configure(**{name: dict(value) for name, value in SETTINGS.items()})
    server.run("flask", "--app", "app", "routes", SOAK_USERS="1")
    try:
        server.start()
        yield server.port, server.pid
    finally:
        server.stop()


def soak(folder: Path, seconds: float, every: float) -> tuple[list[Moment], Counter[str]]:
    """Load a server for some time; return what was measured, and every fault."""
    moments: list[Moment] = []
    with serving(folder) as (port, pid):
        workers = workers_when_started(pid)
        begin, before = time.monotonic(), 0
        with loading(port) as (witness, clients):
            while (second := time.monotonic() - begin) < seconds:
                time.sleep(min(every, seconds - second))
                latencies = witness.take() or [0.0]
                total = sum(sum(client.answers.values()) for client in clients)
                moments.append(
                    Moment(
                        time.monotonic() - begin,
                        max(map(memory_of, workers)),
                        max(map(descriptors_of, workers)),
                        median(latencies),
                        quantiles([*latencies, latencies[-1]], n=20)[-1],
                        total - before,
                    )
                )
                before = total
        faults = sum((client.faults for client in clients), Counter(witness.faults))
        if workers_of(pid) != workers:
            faults["a worker has ended"] += 1
    for client in clients:
        if not client.answers and client.name != "floods":
            faults[f"{client.name}: no answer"] += 1
    return moments, faults


def growth(moments: Sequence[Moment]) -> list[str]:
    """Compare the last fifth with the second, and tell what has grown."""
    fifth = len(moments) // 5
    early, late = moments[fifth : 2 * fifth], moments[-fifth:]
    grown = []
    for name, factor, small in (
        ("memory", 1.05, SMALL_GROWTH),
        ("descriptors", 1.0, 8.0),
        ("typical", 1.5, SMALL_DELAY),
        ("slow", 1.5, 4 * SMALL_DELAY),
    ):
        first, last = (median(getattr(moment, name) for moment in part) for part in (early, late))
        if last > first * factor + small:
            grown.append(f"{name} has grown from {first:.1f} to {last:.1f}")
    return grown


def show(moments: Sequence[Moment], every: int) -> None:
    """Print a table, with the median of so many moments in a row."""
    print("  seconds  answers/s  memory MiB  descriptors  median ms  95th ms")
    began = 0.0
    for at in range(0, len(moments), every):
        part = moments[at : at + every]
        rate = sum(moment.answers for moment in part) / (part[-1].second - began)
        began = part[-1].second
        row = [median(values) for values in zip(*part, strict=True)]
        print(f"{began:9.0f}{rate:11.0f}{row[1]:12.1f}{row[2]:13.0f}{row[3]:11.1f}{row[4]:9.1f}")


def main() -> int:
    """Load a server for some minutes, and return 1 if it is not flat."""
    parser = argparse.ArgumentParser(prog="scripts/soak mixed", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    seconds = options.minutes * 60
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        moments, faults = soak(Path(folder), seconds, seconds / 120)
    show(moments, 6)
    wrong = growth(moments) + [f"{count} × {fault}" for fault, count in faults.items()]
    print("\n".join(wrong) or "flat, and every answer as expected")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
