"""What the audit trail costs a request, what a million events and a flood take, what a crash loses.

One view behind `@require_auth` in three apps of one process: with `audit.enabled: false`, with the
log sink over a handler that writes to the null device, and with the database sink over SQLite.
Rounds take turns, each in another order, and overheads are medians of the differences within a
round. "Own thread" is the processor time of the thread that asks; "process" adds the thread that
writes, and the flush at the end of each round. The million events go through the backlog, and are
verified as they lie. A flood is requests without a credential, from one address or many; each
costs what it does beyond a refusal with `audit.enabled: false`. Crashes are a process that is
killed while it answers; lost is what was answered and has no row.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import platform
import random
import secrets
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from flask import Flask
from werkzeug.test import EnvironBuilder

from flask_m9m import M9M, require_auth
from flask_m9m.audit import Event, EventName
from flask_m9m.testing import make_settings
from tests.databases import empty_postgres, running_postgres

ROOT = Path(__file__).parents[1]
BAR = 10.0  # µs a request
OFF, LOG, DATABASE = "off", "log", "database"
SETTINGS: dict[str, dict[str, Any]] = {
    OFF: {"enabled": False},
    LOG: {"sinks": ["log"]},
    DATABASE: {"sinks": ["database"]},
}
Environ = dict[str, Any]


def make_app(url: str, audit: dict[str, Any], key: str | None = None) -> tuple[Flask, M9M]:
    app = Flask("audited")
    settings = {
        "audit": audit,
        "credentials": {"encryption_key": key or secrets.token_hex(32)},
        "database": {"url": url},
    }
    m9m = M9M(app, settings=make_settings(settings))

    @app.get("/items")
    @require_auth
    def items() -> dict[str, object]:
        return {"data": [1, 2, 3], "total": 3}

    app.extensions["m9m"].database.upgrade()
    return app, m9m


def environ_of(app: Flask, m9m: M9M) -> Environ:
    with app.app_context():
        token = m9m.tokens.issue("ann")
    builder = EnvironBuilder(
        "/items",
        headers={"Authorization": f"Bearer {token}"},
        environ_base={"REMOTE_ADDR": "192.0.2.1"},
    )
    return builder.get_environ()


# A request


class Cost(NamedTuple):
    """Microseconds of one request: by the clock, of its own thread, and of the whole process."""

    wall: float
    thread: float
    process: float


class Case:
    """One app, asked in rounds."""

    def __init__(self, folder: Path, name: str) -> None:
        url = f"sqlite:///{folder / f'{name}.db'}"
        self.app, self.m9m = make_app(url, SETTINGS[name])
        self._environ = environ_of(self.app, self.m9m)
        self.rounds: list[Cost] = []

    def run(self, requests: int) -> None:
        environs = [dict(self._environ) for _ in range(requests)]
        ask, statuses = self.app.wsgi_app, []

        def start_response(status: str, headers: object, exc_info: object = None) -> Any:
            statuses.append(status)

        wall, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
        while environs:  # as in a server, nothing of a request outlives it
            body = ask(environs.pop(), start_response)
            for _ in body:
                pass
            body.close()  # type: ignore[attr-defined]
        spent = [time.perf_counter() - wall, time.thread_time() - thread]
        with self.app.app_context():
            self.m9m.audit.flush()
        spent.append(time.process_time() - process)
        self.rounds.append(Cost(*(one / requests * 1e6 for one in spent)))
        if set(statuses) != {"200 OK"}:
            raise SystemExit(f"{set(statuses)} instead of 200")

    def close(self) -> None:
        self.app.extensions["m9m"].database.close()


def request_costs(folder: Path, rounds: int, requests: int) -> None:
    cases = {name: Case(folder, name) for name in SETTINGS}
    for case in cases.values():
        case.run(requests)
        case.rounds.clear()
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for case in random.sample(list(cases.values()), len(cases)):
            case.run(requests)
    gc.unfreeze()
    print(f"{rounds} rounds of {requests} requests\n")
    print(
        "| µs a request | by the clock | own thread | process | own thread, more | process, more |"
    )
    print("|---|---|---|---|---|---|")
    for name, case in cases.items():
        columns = list(zip(*case.rounds, strict=True))
        medians = " | ".join(f"{statistics.median(one):.1f}" for one in columns)
        more = " | ".join(spread(overheads(case, cases[OFF], at)) for at in (1, 2))
        print(f"| {name} | {medians} | {more} |")
    added = statistics.median(overheads(cases[DATABASE], cases[OFF], 2))
    verdict = "within" if added <= BAR else "over"
    print(f"\nthe database sink adds {added:.1f} µs, {verdict} the bar of {BAR:.0f} µs")
    for case in cases.values():
        case.close()


def overheads(case: Case, off: Case, at: int) -> list[float]:
    return [one[at] - other[at] for one, other in zip(case.rounds, off.rounds, strict=True)]


def spread(differences: list[float]) -> str:
    """Return the median, and what the middle half lies between."""
    low, middle, high = statistics.quantiles(differences, n=4)
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


# A million events


def many_events(url: str, events: int, size: Callable[[], int]) -> None:
    app, m9m = make_app(url, SETTINGS[DATABASE])
    trail, waits = app.extensions["m9m"].trail, 10_000
    with app.app_context():
        m9m.audit.record("begun")
        empty = size()
        wall, process = time.perf_counter(), time.process_time()
        for number in range(events):
            trail.record_event(an_event(number))
            if number % waits == waits - 1:  # nothing is to be dropped
                m9m.audit.flush()
        m9m.audit.flush()
        wall, process = time.perf_counter() - wall, time.process_time() - process
        octets = size() - empty
        begun = time.perf_counter()
        found = m9m.audit.verify()
        took = time.perf_counter() - begun
    app.extensions["m9m"].database.close()
    if not found.holds or found.rows != events + 1:
        raise SystemExit(f"{found.rows} rows: {list(found.problems)[:3]}")
    print(
        f"| {url.partition(':')[0]} | {events:,} | {wall / events * 1e6:.1f} "
        f"| {process / events * 1e6:.1f} | {octets / events:.0f} "
        f"| {found.rows / took:,.0f} |"
    )


def an_event(number: int) -> Event:
    return Event(
        EventName.AUTHENTICATED,
        time.time(),
        request_id=f"{number:032x}",
        subject=f"user-{number % 1_000}",
        scheme="bearer",
        address="192.0.2.1",
        method="GET",
        route="items",
        target="WSU4u0uJR0BZe_w9_9awcQ",
    )


def sqlite_size(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


def postgres_size(url: str) -> int:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT pg_total_relation_size('m9m_audit')")).scalar()
    engine.dispose()
    return int(found or 0)


# A flood


def flood(folder: Path, addresses: int, seconds: float) -> None:
    """Send refused requests from so many addresses in turn; count what the trail keeps of them."""
    path = folder / f"flood-{addresses}.db"
    app, m9m = make_app(f"sqlite:///{path}", {"sinks": ["log", "database"]})
    off, _ = make_app(f"sqlite:///{path}", SETTINGS[OFF])
    with app.app_context():
        m9m.audit.record("begun")
    empty = sqlite_size(path)
    asked, cost = refuse(app, addresses, seconds)
    _, without = refuse(off, addresses, seconds)
    with app.app_context():
        m9m.audit.flush()
        rows = m9m.audit.verify().rows - 1
    print(
        f"| {addresses:,} | {asked / seconds:,.0f} | {rows:,} | {rows / seconds:,.1f} "
        f"| {sqlite_size(path) - empty:,} | {cost - without:.1f} |"
    )
    app.extensions["m9m"].database.close()


def refuse(app: Flask, addresses: int, seconds: float) -> tuple[int, float]:
    """Return how many requests were refused, and what each cost, in µs of the process."""
    environ, asked = EnvironBuilder("/items").get_environ(), 0
    until, process = time.monotonic() + seconds, time.process_time()
    while time.monotonic() < until:
        asked += 1
        number = asked % addresses
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        body = app.wsgi_app({**environ, "REMOTE_ADDR": address}, lambda *answer: lambda _: None)
        body.close()  # type: ignore[attr-defined]
    return asked, (time.process_time() - process) / asked * 1e6


# A crash


def keep_asking(url: str, key: str, a_second: str) -> None:
    """Ask an app of our own until somebody kills us, saying when each request was answered."""
    rate = float(a_second)
    app, m9m = make_app(url, SETTINGS[DATABASE], key)
    environ, answered = environ_of(app, m9m), sys.stdout.fileno()

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        ids.append(dict(headers)["X-Request-ID"])

    begun = time.monotonic()
    for number in range(sys.maxsize):
        ids: list[str] = []
        b"".join(app.wsgi_app(dict(environ), start_response))
        os.write(answered, f"{time.monotonic()} {ids[0]}\n".encode())
        if rate:
            time.sleep(max(0.0, begun + (number + 1) / rate - time.monotonic()))


def crashes(folder: Path, kills: int) -> None:
    path, key = folder / "crash.db", secrets.token_hex(32)
    url = f"sqlite:///{path}"
    app, m9m = make_app(url, SETTINGS[DATABASE], key)
    print(f"{kills} kills each\n")
    print("| load | answered a second | most lost, events | most lost, seconds | of answered |")
    print("|---|---|---|---|---|")
    for load, rate in (("200 a second", 200.0), ("all it can", 0.0)):
        found = [killed(path, url, key, rate) for _ in range(kills)]
        answered, lost = sum(len(one) for one, _ in found), sum(len(one) for _, one in found)
        seconds = sum(one[-1][0] - one[0][0] for one, _ in found)
        most = max(len(one) for _, one in found)
        age = max(one[-1][0] - missing[0][0] if missing else 0.0 for one, missing in found)
        print(
            f"| {load} | {answered / seconds:,.0f} | {most:,} | {age:.2f} "
            f"| {lost:,} of {answered:,} |"
        )
    with app.app_context():
        verified = m9m.audit.verify()
    app.extensions["m9m"].database.close()
    print(f"\nafterwards {verified.rows:,} rows, {len(verified.problems)} problems")


Answered = list[tuple[float, str]]


def killed(path: Path, url: str, key: str, rate: float) -> tuple[Answered, Answered]:
    """Kill a process at any moment; return what it answered, and what of it has no row."""
    code = "import sys; from benchmarks.audit import keep_asking; keep_asking(*sys.argv[1:])"
    command = [sys.executable, "-c", code, url, key, str(rate)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.readline()
    timer = threading.Timer(random.uniform(0.5, 3.0), process.kill)
    timer.start()
    lines = [first, *process.stdout]
    process.wait()
    timer.join()
    process.stdout.close()
    answered = [
        (float(at), request_id)
        for at, request_id in (line.decode().split() for line in lines if line.endswith(b"\n"))
    ]
    with closing(sqlite3.connect(path)) as database:
        kept = {one for (one,) in database.execute("SELECT request_id FROM m9m_audit")}
    return answered, [one for one in answered if one[1] not in kept]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=2_000, help="in a round")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--postgres-events", type=int, default=200_000, help="0: not at all")
    parser.add_argument("--flood", type=float, default=30.0, help="seconds of each flood")
    parser.add_argument("--kills", type=int, default=20, help="under each load")
    options = parser.parse_args()
    lines = logging.getLogger("flask_m9m.audit")
    lines.propagate = False
    lines.setLevel(logging.INFO)
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w", encoding="utf-8") as null:
        folder = Path(name)
        lines.addHandler(logging.StreamHandler(null))
        if options.rounds:
            request_costs(folder, options.rounds, options.requests)
        print("\n| | events | µs by the clock | µs of the process | bytes | verified a second |")
        print("|---|---|---|---|---|---|")
        if options.events:
            path = folder / "many.db"
            many_events(f"sqlite:///{path}", options.events, lambda: sqlite_size(path))
        if options.postgres_events:
            with running_postgres(folder / "pg") as server, empty_postgres(server) as url:
                many_events(url, options.postgres_events, lambda: postgres_size(url))
        print()
        if options.flood:
            print("| addresses | refused a second | rows | rows a second | bytes | µs each |")
            print("|---|---|---|---|---|---|")
            for addresses in (1, 10_000):
                flood(folder, addresses, options.flood)
            print()
        if options.kills:
            crashes(folder, options.kills)
    return 0


if __name__ == "__main__":
    sys.exit(main())
