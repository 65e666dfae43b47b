"""What each store admits of one client's flood, beside what the limit allows.

Processes with threads hit one client's bucket as fast as they can, with a little work between the
hits. A token bucket allows `burst + rate * seconds`. Where each process counts alone, each has a
bucket of its own. In `redis is gone` the machine's shared store counts. In `lockout` the hits are
attempts at one account's password.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from flask_m9m.auth.lockout import Lockout
from flask_m9m.errors import InvalidCredentials, M9MError
from flask_m9m.http.address import Client
from flask_m9m.ratelimit import LimitStore, RateLimit, limit_stores
from flask_m9m.ratelimit.store import StoreFailure
from flask_m9m.settings import settings_of

ROOT = Path(__file__).parents[1]
THREADS = (1, 8, 64)
PROCESSES = (1, 4)
LIMIT = RateLimit(1_200, 60, 10, "flood")
ATTEMPTS = RateLimit(60, 60, 60, "attempts")
CLIENT = "203.0.113.7"
NO_SERVER = "redis://127.0.0.1:1"

Hit = Callable[[], bool]


class Flood(NamedTuple):
    """What one process does.

    Attributes:
        store: the settings of `performance.rate_limit`.
        private: whether the app counts alone, as under `TESTING`.
        lockout: whether the hits are attempts at a password.
        threads: how many threads hit.
        seconds: for how long.
    """

    store: dict[str, Any]
    private: bool = False
    lockout: bool = False
    threads: int = 1
    seconds: float = 1.0

    @property
    def limit(self) -> RateLimit:
        return ATTEMPTS if self.lockout else LIMIT


class Outcome(NamedTuple):
    """What came of it; the times are those of a clock that all processes share."""

    hits: int
    admitted: int
    failures: int
    begun: float
    ended: float
    longest: float


class Result(NamedTuple):
    """What came of several processes' floods at once."""

    hits: int
    admitted: int
    allowed: float
    failures: int
    longest: float


def flood(flood: Flood, start: Callable[[], object] = lambda: None) -> Outcome:
    """Hit from all threads of this process, once `start` has returned."""
    hit, store = _make_hit(flood)
    begin, outcomes, until = threading.Barrier(flood.threads + 1), [], 0.0

    def run() -> None:
        hits, admitted, longest = 0, 0, 0.0
        begin.wait()
        while (before := time.monotonic()) < until:
            admitted += hit()
            longest = max(longest, time.monotonic() - before)
            hits += 1
            sum(range(50))
        outcomes.append((hits, admitted, longest))

    threads = [threading.Thread(target=run) for _ in range(flood.threads)]
    for thread in threads:
        thread.start()
    start()
    begun = time.monotonic()
    until = begun + flood.seconds
    begin.wait()
    for thread in threads:
        thread.join()
    hits, admitted, longest = zip(*outcomes, strict=True)
    ended = time.monotonic()
    return Outcome(sum(hits), sum(admitted), store.failures, begun, ended, max(longest))


def _make_hit(flood: Flood) -> tuple[Hit, LimitStore]:
    """Return what a thread calls, which tells whether it was admitted, and the store."""
    settings = settings_of({"performance": {"rate_limit": flood.store}}).performance.rate_limit
    limits, attempts = limit_stores(
        settings, ("flood", "/flood"), key=b"k" * 32, private=flood.private, clock=time.monotonic
    )
    if flood.lockout:
        lockout = {"attempts": ATTEMPTS.count, "per": ATTEMPTS.period}
        settings = settings_of({"security": {"lockout": lockout}}).security.lockout
        guard, client = Lockout(settings, attempts), Client(CLIENT, CLIENT, secure=True)

        def attempt() -> bool:
            verified = False
            with suppress(M9MError), guard.attempt("ann", client):
                verified = True
                raise InvalidCredentials
            return verified

        return attempt, attempts

    def hit() -> bool:
        try:
            return limits.hit(LIMIT, CLIENT).admitted
        except StoreFailure:
            return False

    return hit, limits


def flood_together(one: Flood, processes: int) -> Result:
    """Flood from several processes at once."""
    command = [sys.executable, "-m", "benchmarks.flood_stores", json.dumps(one)]
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        for _ in range(processes)
    ]
    try:
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        patience = 60 + 10 * one.seconds
        answers = [process.communicate(timeout=patience)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    outcomes = [Outcome(*json.loads(answer)) for answer in answers]
    seconds = max(each.ended for each in outcomes) - min(each.begun for each in outcomes)
    allowed = one.limit.burst + one.limit.count / one.limit.period * seconds
    failures = sum(each.failures for each in outcomes)
    alone = one.private or one.store["storage"] == "memory"
    buckets = processes if alone else 1
    if one.store.get("redis_url", NO_SERVER) != NO_SERVER:
        # While a server is too slow, as on a machine with too much to do, others count.
        buckets = 1 + (buckets if failures else 0)
    return Result(
        sum(each.hits for each in outcomes),
        sum(each.admitted for each in outcomes),
        allowed * buckets,
        failures,
        max(each.longest for each in outcomes),
    )


def cases(redis_url: str) -> Iterator[tuple[str, Flood]]:
    """Return what is flooded, each with a title."""
    shared, redis = {"storage": "shared"}, {"storage": "redis", "redis_url": redis_url}
    yield "memory", Flood({"storage": "memory"})
    yield "shared", Flood(shared)
    yield "shared, testing", Flood(shared, private=True)
    yield "redis", Flood(redis)
    yield "redis, lease 10", Flood({**redis, "lease": 10})
    yield "redis, testing", Flood(redis, private=True)
    yield "redis is gone", Flood({**redis, "redis_url": NO_SERVER})
    yield "lockout, shared", Flood(shared, lockout=True)
    yield "lockout, redis", Flood(redis, lockout=True)


def print_table(
    directory: Path, redis_url: str, reset: Callable[[], object], seconds: float
) -> bool:
    """Flood every store by every number of threads and processes.

    Args:
        directory: where the files of shared stores go.
        redis_url: a server that is used for nothing else.
        reset: empties that server.
        seconds: how long each flood takes.

    Returns:
        Whether no store ever admitted more than it allows.
    """
    print("| store | threads | processes | hits | admitted | allowed | failures | longest |")
    print("|---|---|---|---|---|---|---|---|")
    exact, number = True, 0
    for title, case in cases(redis_url):
        for processes in PROCESSES:
            for threads in THREADS:
                reset()
                number += 1
                store = {**case.store, "path": str(directory / f"limits{number}")}
                result = flood_together(
                    case._replace(store=store, threads=threads, seconds=seconds), processes
                )
                over = result.admitted > result.allowed
                exact &= not over
                print(
                    f"| {title} | {threads} | {processes} | {result.hits:,} | {result.admitted} "
                    f"| {result.allowed:.1f} | {result.failures} | {result.longest * 1e3:.0f} ms |"
                    + (" over" if over else ""),
                    flush=True,
                )
    return exact


def _main() -> None:
    def start() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    print(json.dumps(flood(Flood(*json.loads(sys.argv[1])), start)))


if __name__ == "__main__":
    _main()
