from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from flask_m9m.errors import DatabaseUnavailable
from flask_m9m.storage import ChangeFeed, Database, tables
from flask_m9m.testing import Clock
from tests.databases import settle

from .conftest import OpenDatabase

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Remembered:
    """A cache that notes what it is told."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.cleared = 0
        self.kept: list[str] = []

    def drop(self, topic: str, name: str) -> None:
        self.dropped.append(name)

    def clear(self) -> None:
        self.cleared += 1
        self.dropped.clear()


class Process:
    """What one process has: a database, a feed and a cache."""

    def __init__(self, database: Database, clock: Callable[[], float], **settings: float) -> None:
        self.database = database
        self.cache = Remembered()
        self.feed = ChangeFeed(
            database, **{"propagation": 1.0, "max_staleness": 30.0, **settings}, clock=clock
        )
        self.feed.subscribe(self.cache)

    def change(self, name: str) -> None:
        with self.feed.write() as transaction:
            transaction.append_change("test", name, NOW)


MakeProcess = Callable[..., Process]


@pytest.fixture
def make_process(
    database_url: str, open_database: OpenDatabase, clock: Clock, request: pytest.FixtureRequest
) -> MakeProcess:
    def make(**settings: float) -> Process:
        database = open_database(database_url)
        database.upgrade()
        return Process(database, clock, **settings)

    return make


def test_a_process_learns_what_another_changed(make_process: MakeProcess, clock: Clock) -> None:
    one, other = make_process(), make_process()
    other.feed.catch_up()
    one.change("x")

    other.feed.catch_up()
    assert other.cache.dropped == []
    clock.advance(1.0)
    other.feed.catch_up()
    assert other.cache.dropped == ["x"]


def test_a_process_knows_its_own_changes_at_once(make_process: MakeProcess) -> None:
    one = make_process()
    one.feed.catch_up()
    one.change("x")

    one.feed.catch_up()
    settle()  # on a busy machine the read may take longer than a request waits for it
    assert one.cache.dropped == ["x"]


def test_nothing_is_read_within_propagation(
    make_process: MakeProcess, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, reads = make_process(), []
    read = one.database.read

    def count(query: Any) -> Any:
        reads.append(query)
        return read(query)

    monkeypatch.setattr(one.database, "read", count)
    for _ in range(100):
        one.feed.catch_up()
        clock.advance(0.02)
    assert len(reads) in (2, 3)


def test_a_fill_that_began_before_a_change_is_not_kept(
    make_process: MakeProcess, clock: Clock
) -> None:
    one, other = make_process(), make_process()
    one.feed.catch_up()
    noted = one.feed.fill_ticket()
    other.change("x")  # after the query of the fill, and before it is kept
    clock.advance(1.0)
    one.feed.catch_up()

    one.feed.keep(noted, lambda: one.cache.kept.append("old"))
    one.feed.keep(one.feed.fill_ticket(), lambda: one.cache.kept.append("new"))
    assert one.cache.kept == ["new"]


def test_a_fill_is_kept_where_nothing_changed(make_process: MakeProcess, clock: Clock) -> None:
    one = make_process()
    one.feed.catch_up()
    noted = one.feed.fill_ticket()
    clock.advance(1.0)
    one.feed.catch_up()

    one.feed.keep(noted, lambda: one.cache.kept.append("kept"))
    assert one.cache.kept == ["kept"]


@pytest.mark.parametrize(
    "rewind",
    ["another last row", "fewer rows", "pruned", "empty", "rewritten and grown"],
)
def test_a_history_that_is_not_the_one_read_empties_the_caches(
    rewind: str, make_process: MakeProcess, clock: Clock
) -> None:
    one = make_process()
    for name in "abc":
        one.change(name)
    one.feed.catch_up()
    assert one.cache.cleared == 1

    changes = tables.changes
    with one.database._connected().begin() as connection:
        if rewind == "another last row":
            connection.execute(sa.update(changes).where(changes.c.name == "c").values(mark=1))
        elif rewind == "fewer rows":
            connection.execute(sa.delete(changes).where(changes.c.name.in_(["b", "c"])))
        else:
            connection.execute(sa.delete(changes))
    if rewind in ("pruned", "rewritten and grown"):
        one.change("d")
    if rewind == "rewritten and grown":  # past where it was read, with other rows below
        with one.database._connected().begin() as connection:
            for number in range(1, 5):
                row = {"id": number, "mark": number, "topic": "t", "name": "", "changed_at": NOW}
                connection.execute(sa.insert(changes).values(row))
    clock.advance(1.0)
    one.feed.catch_up()
    assert one.cache.cleared == 2
    assert one.cache.dropped == []


def test_many_changes_at_once_empty_the_caches(
    make_process: MakeProcess, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_m9m.storage.feed._MOST", 5)
    one, other = make_process(), make_process()
    other.feed.catch_up()
    for number in range(3):
        one.change(f"a{number}")
    clock.advance(1.0)
    other.feed.catch_up()
    assert other.cache.dropped == ["a0", "a1", "a2"]
    for number in range(6):
        one.change(f"b{number}")
    clock.advance(1.0)
    other.feed.catch_up()
    assert other.cache.cleared == 2
    one.change("c")
    clock.advance(1.0)
    other.feed.catch_up()
    assert other.cache.dropped == ["c"]


def test_old_changes_are_forgotten_and_the_newest_stays(make_process: MakeProcess) -> None:
    one = make_process()
    for day in range(70):
        with one.database.write() as transaction:
            transaction.append_change("test", str(day), NOW + timedelta(days=day))

    kept = one.database.read(lambda t: t.changes_since(0, 1_000))
    assert 5 < len(kept) < 20
    assert kept[-1].name == "69"


def unreachable(*_: object) -> None:
    raise DatabaseUnavailable("away")


def test_what_is_known_counts_until_max_staleness_while_the_database_is_away(
    make_process: MakeProcess, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_process()
    one.feed.catch_up()
    with monkeypatch.context() as away:
        away.setattr(one.database, "read", unreachable)
        clock.advance(30.0)
        one.feed.catch_up()
        clock.advance(0.5)
        with pytest.raises(DatabaseUnavailable):
            one.feed.catch_up()
    clock.advance(0.5)
    one.feed.catch_up()


def test_without_any_good_read_nothing_counts(
    make_process: MakeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_process()
    monkeypatch.setattr(one.database, "read", unreachable)

    with pytest.raises(DatabaseUnavailable):
        one.feed.catch_up()


def test_staleness_counts_from_the_start_of_the_read(
    make_process: MakeProcess, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = make_process(), make_process()
    read = one.database.read

    def slow(query: Any) -> Any:
        found = read(query)
        clock.advance(0.9)  # a change that was made now is not in it
        return found

    monkeypatch.setattr(one.database, "read", slow)
    one.feed.catch_up()
    other.change("x")
    clock.advance(0.2)
    one.feed.catch_up()
    assert one.cache.dropped == ["x"]


def test_a_database_that_hangs_keeps_requests_waiting_for_a_quarter_of_a_second(
    postgres_url: str, open_database: OpenDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(postgres_url)
    database.upgrade()
    one, released = Process(database, clock), threading.Event()
    one.feed.catch_up()
    read, waits = database.read, []

    def hang(query: Any) -> Any:
        released.wait(30)
        return read(query)

    monkeypatch.setattr(database, "read", hang)
    clock.advance(2.0)
    for _ in range(3):
        begun = time.monotonic()
        one.feed.catch_up()
        waits.append(time.monotonic() - begun)
    clock.advance(30.0)
    with pytest.raises(DatabaseUnavailable):
        one.feed.catch_up()
    released.set()

    assert max(waits) < 2.0  # of the 30 that it hangs; the first waits 250 ms
    deadline = time.monotonic() + 20
    while one.feed._reading is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    one.feed.catch_up()


def test_requests_wait_for_one_read_together(
    postgres_url: str, open_database: OpenDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(postgres_url)
    database.upgrade()
    one, reads, started = Process(database, clock), [], threading.Barrier(8)
    read = database.read

    def count(query: Any) -> Any:
        reads.append(query)
        time.sleep(0.05)
        return read(query)

    def request() -> None:
        started.wait(10)
        one.feed.catch_up()

    monkeypatch.setattr(database, "read", count)
    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(reads) == 1


def test_no_database_is_nothing_to_know(
    sqlite_url: str, open_database: OpenDatabase, clock: Clock
) -> None:
    one = Process(open_database(sqlite_url), clock)
    one.feed.catch_up()
    assert one.feed.empty

    one.change("x")
    one.feed.catch_up()
    assert not one.feed.empty


def test_a_database_that_vanishes_is_away(
    sqlite_url: str, open_database: OpenDatabase, clock: Clock
) -> None:
    import os

    one = Process(open_database(sqlite_url), clock)
    one.change("x")
    one.feed.catch_up()
    os.unlink(sqlite_url.removeprefix("sqlite:///"))

    clock.advance(2.0)
    one.feed.catch_up()
    assert not one.feed.empty
    clock.advance(30.0)
    with pytest.raises(DatabaseUnavailable):
        one.feed.catch_up()


def test_a_batch_is_written_once_a_minute(make_process: MakeProcess, clock: Clock) -> None:
    one, written = make_process(), threading.Semaphore(0)
    one.feed.add_batch(written.release)
    one.feed.catch_up()
    assert not written.acquire(blocking=False)
    for _ in range(3):
        one.feed.write_due()
    assert written.acquire(timeout=10)
    clock.advance(59.0)
    one.feed.catch_up()
    one.feed.write_due()
    assert not written.acquire(timeout=0.1)
    clock.advance(1.0)
    one.feed.catch_up()
    one.feed.write_due()
    assert written.acquire(timeout=10)


def test_a_batch_that_fails_keeps_no_query_from_being_asked(
    make_process: MakeProcess, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_process()
    one.feed.add_batch(unreachable)
    one.feed.catch_up()
    one.feed.write_batches()

    one.feed.ask(lambda transaction: transaction.newest_change())
    assert [record.getMessage() for record in caplog.records] == [
        "the database cannot be written, so what requests noted is stored later: away"
    ]


def test_one_line_per_interval_tells_that_batches_cannot_be_written(
    make_process: MakeProcess, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_process()
    one.feed.add_batch(unreachable)
    lines = []
    for _ in range(4):
        one.feed.write_batches()
        one.feed.write_batches()
        clock.advance(15.0)
        lines.append(len(caplog.records))
    assert lines == [1, 1, 2, 2]


def test_a_read_that_hangs_is_given_up_and_counts_for_nothing(
    postgres_url: str, open_database: OpenDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_m9m.storage.feed._HANG", 0.3)
    one = Process(open_database(postgres_url), clock)
    one.database.upgrade()
    one.feed.catch_up()
    fetch, released, ended = one.feed._fetch, threading.Event(), threading.Event()
    late = threading.Event()

    def hang_once() -> Any:
        if late.is_set():
            return fetch()
        late.set()
        found = fetch()
        released.wait(30)
        ended.set()
        return found

    monkeypatch.setattr(one.feed, "_fetch", hang_once)
    clock.advance(1.0)
    one.feed.catch_up()
    one.change("x")
    time.sleep(0.3)
    one.feed.catch_up()
    assert one.cache.dropped == ["x"]
    position = one.feed._position
    released.set()
    assert ended.wait(10)
    time.sleep(0.05)
    assert one.feed._position == position


def test_a_feed_that_is_empty_is_not_the_absence_of_a_database(
    make_process: MakeProcess, clock: Clock
) -> None:
    one = make_process()
    with one.database._connected().begin() as connection:
        connection.execute(sa.delete(tables.changes))
    one.feed.catch_up()

    assert not one.feed.empty
    assert not one.feed.has_no_database()
