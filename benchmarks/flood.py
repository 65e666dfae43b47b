"""How many requests a flood gets through, beside what the limit allows.

First the stores are flooded directly, by every number of threads and processes (`flood_stores`).
No store may ever admit more than it allows.

Then gunicorn with four workers of four threads serves one view under `requests_per_minute: 600,
burst: 50`. For ten seconds sixteen connections of one client ask as fast as they can. A token
bucket admits `burst + rate * seconds`; each store of flask-m9m, and Flask-Limiter with
`memory://`, is asked in turn.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

from benchmarks.flood_stores import print_table
from flask_m9m import M9M, unlimited
from tests.gunicorn import ROOT, gunicorn
from tests.redis_servers import RedisServer

PER_MINUTE, BURST = 600, 50
WORKERS, THREADS, CONNECTIONS = 4, 4, 16
OWN = (200, 429)


class Flooded(NamedTuple):
    """What came of a flood: answers by status, and how long it took."""

    statuses: Counter[int]
    seconds: float

    @property
    def allowed(self) -> float:
        return BURST + PER_MINUTE / 60 * self.seconds


def served(kind: str, **store: Any) -> Flask:
    """Return the app that gunicorn serves."""
    app = Flask("flooded")
    app.add_url_rule("/", "index", lambda: "x")

    def worker() -> str:
        return str(os.getpid())

    if kind == "Flask-Limiter":
        limit = f"{PER_MINUTE}/minute"
        limiter = Limiter(
            get_remote_address, app=app, default_limits=[limit], storage_uri="memory://"
        )
        app.add_url_rule("/worker", "worker", limiter.exempt(worker))
        return app
    app.add_url_rule("/worker", "worker", unlimited(worker))
    limiting = {"enabled": True, "requests_per_minute": PER_MINUTE, "burst": BURST, **store}
    jwt = {"enabled": False}
    M9M(app, settings={"security": {"jwt": jwt}, "performance": {"rate_limit": limiting}})
    return app


@contextmanager
def serving(directory: Path, factory: str) -> Iterator[int]:
    """Run gunicorn on an app, and return its port."""
    options = ["--keep-alive", "10", "-w", str(WORKERS), "--threads", str(THREADS)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with gunicorn(directory, factory, *options, environ=environ) as port:
        wait_for_workers(port)
        yield port


def wait_for_workers(port: int) -> None:
    """Wait until each worker has answered: the first one would take all connections."""
    seen: set[bytes] = set()
    until = time.monotonic() + 30
    while len(seen) < WORKERS:
        if time.monotonic() > until:
            raise TimeoutError(f"{len(seen)} of {WORKERS} workers answer")
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        with suppress(OSError):
            connection.request("GET", "/worker")
            seen.add(connection.getresponse().read())
        connection.close()


def flood(port: int, seconds: float) -> Flooded:
    """Ask as fast as it goes, and count the answers."""
    statuses: Counter[int] = Counter()
    lock, begin = threading.Lock(), threading.Barrier(CONNECTIONS + 1)
    until = 0.0

    def ask() -> None:
        own: Counter[int] = Counter()
        begin.wait()
        while time.monotonic() < until:
            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                for _ in range(20):  # then perhaps another worker
                    connection.request("GET", "/")
                    answer = connection.getresponse()
                    answer.read()
                    own[answer.status] += 1
                    if time.monotonic() >= until:
                        break
            except (OSError, HTTPException):
                own[0] += 1
            connection.close()
        with lock:
            statuses.update(own)

    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    until = begun + seconds
    begin.wait()
    for thread in threads:
        thread.join()
    return Flooded(statuses, time.monotonic() - begun)


def cases(redis_url: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return what is flooded: a title, the kind of app, and its store."""
    yield "flask-m9m, shared", "flask-m9m", {"storage": "shared"}
    for lease in (1, 10, 100):
        redis = {"storage": "redis", "redis_url": redis_url, "lease": lease}
        yield f"flask-m9m, redis, lease {lease}", "flask-m9m", redis
    yield "flask-m9m, memory", "flask-m9m", {"storage": "memory"}
    yield "Flask-Limiter, memory://", "Flask-Limiter", {}


def main() -> int:
    """Flood each in turn, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a flood of gunicorn")
    parser.add_argument("--store-seconds", type=float, default=2.0, help="of a flood of a store")
    parser.add_argument("--stores", action="store_true", help="flood the stores alone")
    options = parser.parse_args()
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    exact = _flood_stores(options.store_seconds)
    if not options.stores:
        exact &= _flood_workers(options.seconds)
    return 0 if exact else 1


def _flood_stores(seconds: float) -> bool:
    print(f"{os.cpu_count()} processors, {seconds:g} s each\n")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:  # where apps have it
        redis = RedisServer(Path(name) / "redis")
        try:
            return print_table(Path(name), redis.url, lambda: redis.call("FLUSHALL"), seconds)
        finally:
            redis.close()


def _flood_workers(seconds: float) -> bool:
    print(f"\ngunicorn -w {WORKERS} --threads {THREADS}, {CONNECTIONS} connections, {seconds:g} s")
    print(f"{PER_MINUTE} a minute, a burst of {BURST}\n")
    print("| | answers | admitted | allowed | more |\n|---|---|---|---|---|")
    right = True
    with tempfile.TemporaryDirectory() as name:
        redis = RedisServer(Path(name) / "redis")
        try:
            for number, (title, kind, store) in enumerate(cases(redis.url)):
                directory = Path(name) / str(number)
                directory.mkdir()
                if kind == "flask-m9m":
                    store = {"path": str(directory / "limits"), **store}
                redis.call("FLUSHALL")
                options = "".join(f", {name}={value!r}" for name, value in store.items())
                with serving(directory, f"benchmarks.flood:served({kind!r}{options})") as port:
                    flooded = flood(port, seconds)
                admitted = flooded.statuses[200]
                more = admitted - flooded.allowed
                answers = sum(flooded.statuses.values())
                other = {status: n for status, n in flooded.statuses.items() if status not in OWN}
                exact = abs(more) <= flooded.seconds and not other
                right &= "memory" in title or exact
                print(
                    f"| {title} | {answers:,} | {admitted} | {flooded.allowed:.0f} | {more:+.0f} |",
                    other or "",
                    flush=True,
                )
        finally:
            redis.close()
    return right


if __name__ == "__main__":
    sys.exit(main())
