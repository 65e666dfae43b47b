"""Known addresses: shared by all workers, kept through a reload, bounded, and hashed."""

from __future__ import annotations

import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_m9m import M9M, require_auth
from flask_m9m.auth.known_addresses import KnownAddresses
from flask_m9m.processes.shared_directory import SharedDirectory
from flask_m9m.ratelimit.limit import RateLimit
from flask_m9m.ratelimit.memory import MemoryStore
from flask_m9m.ratelimit.shared import SharedStore
from flask_m9m.ratelimit.store import LimitStore, StoreFailure, Want
from flask_m9m.settings.models import RateLimitSettings
from flask_m9m.storage.tables import known_addresses
from flask_m9m.testing import Clock, make_settings
from tests.databases import settle

DAY = 86_400
HOME = "192.0.2.7"
ROOT = Path(__file__).parents[2]
MakeKnown = Callable[[], KnownAddresses]


@pytest.fixture(params=["memory", "shared", "redis"])
def make_known(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Iterator[MakeKnown]:
    """Return a function that makes the known addresses of another process."""
    if request.param == "redis":
        from flask_m9m.ratelimit.redis_store import RedisStore

        url = request.getfixturevalue("redis_url")
        yield lambda: KnownAddresses(RedisStore(url, b"k" * 16, "app"), clock)
        return
    store: LimitStore = MemoryStore(clock=clock)
    if request.param == "shared":
        directory = SharedDirectory(str(tmp_path / "limits"), ("app", "/"))
        yield lambda: KnownAddresses(
            SharedStore(directory, lambda: int(clock() * 1_000_000)), clock
        )
        return
    yield lambda: KnownAddresses(store, clock)


def test_all_workers_know_an_address_and_so_do_those_that_start_later(
    make_known: MakeKnown,
) -> None:
    first, second = make_known(), make_known()
    first.remember("ann", HOME)
    for known in (first, second, make_known()):
        assert known.knows("ann", HOME)
        assert known.remembers("ann", HOME)
        assert not known.knows("ann", "203.0.113.5")
        assert not known.knows("bob", HOME)


def test_most_sign_ins_ask_no_store(clock: Clock) -> None:
    class Counted(MemoryStore):
        asked = 0

        def peek(self, *args: Any) -> Any:
            self.asked += 1
            return super().peek(*args)

    store = Counted(clock=clock)
    known = KnownAddresses(store, clock)
    for _ in range(1_000):
        known.remember("ann", HOME)
        assert known.remembers("ann", HOME)
    assert store.asked == 1


def test_a_sign_in_renews_an_address_for_thirty_days(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    for _ in range(10):
        KnownAddresses(store, clock).remember("ann", HOME)
        clock.advance(30 * DAY)
        assert KnownAddresses(store, clock).knows("ann", HOME)
    clock.advance(DAY)
    assert not KnownAddresses(store, clock).knows("ann", HOME)


def test_one_account_does_not_push_out_the_addresses_of_others(clock: Clock) -> None:
    store = MemoryStore(800, clock)
    known = KnownAddresses(store, clock)
    for number in range(20):
        known.remember(f"user-{number}", HOME)
    for number in range(10_000):
        known.remember("mallory", f"2001:db8:{number:x}::/64")
    other = KnownAddresses(store, clock)
    assert all(other.knows(f"user-{number}", HOME) for number in range(20))
    assert sum(other.knows("mallory", f"2001:db8:{n:x}::/64") for n in range(10_000)) == 32
    clock.advance(DAY)
    known.remember("mallory", "2001:db8:ffff::/64")
    assert other.knows("mallory", "2001:db8:ffff::/64")


def test_where_there_is_no_room_the_address_that_signed_in_longest_ago_gives_way(
    clock: Clock,
) -> None:
    store = MemoryStore(8, clock)
    for number in range(9):
        KnownAddresses(store, clock).remember(f"user-{number}", HOME)
        clock.advance(1)
    known = KnownAddresses(store, clock)
    assert [known.knows(f"user-{number}", HOME) for number in range(9)] == [False] + [True] * 8


def test_a_clock_that_steps_back_makes_nobody_known(clock: Clock) -> None:
    known = KnownAddresses(MemoryStore(clock=clock), clock)
    known.remember("ann", HOME)
    clock.advance(-1)
    assert not known.remembers("ann", HOME)
    known.remember("ann", HOME)
    assert known.remembers("ann", HOME)


class Failing(MemoryStore):
    failing, asked = True, 0

    def peek(self, *args: Any) -> Any:
        self.asked += 1
        if self.failing:
            raise StoreFailure("gone")
        return super().peek(*args)


def test_while_the_store_fails_this_process_remembers_asks_it_seldom_and_says_so(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Failing(clock=clock)
    known = KnownAddresses(store, clock)
    for number in range(100):
        known.remember("ann", f"192.0.2.{number}")
        assert not known.knows("bob", HOME)
    assert all(known.remembers("ann", f"192.0.2.{number}") for number in range(100))
    assert store.asked == 1
    assert caplog.text.count("lockout: the store fails") == 1
    store.failing, known._failed_at = False, -10.0
    known.remember("ann", "192.0.2.1")
    assert KnownAddresses(store, clock).knows("ann", "192.0.2.1")


@pytest.mark.parametrize("count", [1, 8, 64])
def test_threads_that_sign_in_to_one_account_at_once_are_all_remembered(
    count: int, clock: Clock
) -> None:
    store = MemoryStore(clock=clock)
    known = KnownAddresses(store, clock)
    begin = threading.Barrier(count)

    def use(number: int) -> None:
        begin.wait()
        for _ in range(20):
            known.remember("ann", str(number))
            known.remember("bob", HOME)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(use, range(count)))
    other = KnownAddresses(store, clock)
    assert sum(other.knows("ann", str(number)) for number in range(count)) == min(count, 32)
    assert other.knows("bob", HOME)
    clock.advance(31 * DAY)
    assert not other.knows("bob", HOME)


# In an app

APP = """\
import sys
from base64 import b64encode
from flask import Flask
from flask_m9m import M9M, require_auth

app = Flask("app", instance_path=sys.argv[1])
m9m = M9M(app, settings={"security": {
    "basic_auth": {"enabled": True, "username": "ann", "password": "correct horse"},
    "lockout": {"attempts": 3, "per": "1h"},
}, "performance": {"rate_limit": {"path": sys.argv[1] + "/limits"}}})

@app.get("/x")
@require_auth
def view():
    return "x"

def ask(password, address):
    sent = b64encode(f"ann:{password}".encode()).decode()
    environ = {"REMOTE_ADDR": address, "HTTP_AUTHORIZATION": f"Basic {sent}"}
    return app.test_client().get("/x", environ_base=environ).status_code

home = "192.0.2.7"
"""


def run(folder: Path, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", APP + code, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_owner_who_signed_in_through_one_worker_is_not_locked_out_of_the_next(
    tmp_path: Path,
) -> None:
    run(tmp_path, "assert ask('correct horse', home) == 200")
    attack = """
for number in range(50):
    ask("guess", f"203.0.113.{number}")
assert ask("correct horse", "203.0.113.99") == 429
"""
    run(tmp_path, attack)
    run(tmp_path, attack + "assert ask('correct horse', home) == 200")
    assert not list(tmp_path.glob("**/*.db"))  # and no request made a database for it


def test_the_shared_files_say_nothing_of_who_signed_in_from_where(tmp_path: Path) -> None:
    run(tmp_path, "assert ask('correct horse', home) == 200")
    written = b"".join(path.read_bytes() for path in (tmp_path / "limits").iterdir())
    assert b"known-address" in written
    assert b"ann" not in written
    assert HOME.encode() not in written


def test_known_addresses_are_no_clients_that_spent_something(tmp_path: Path) -> None:
    code = """
assert ask("correct horse", home) == 200
assert ask("wrong", home) == 401
from flask_m9m.cli import m9m as command
result = app.test_cli_runner().invoke(command, ["limits", "top", "-o", "json"])
assert result.exit_code == 0, result.output
assert "attempts-address" in result.output
assert "known-address" not in result.output
"""
    run(tmp_path, code)


def test_four_processes_of_many_threads_verify_as_many_guesses_as_one(tmp_path: Path) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
from os import getpid
with ThreadPoolExecutor(8) as pool:
    asked = pool.map(lambda n: ask("guess", f"10.0.{getpid() % 256}.{n}"), range(24))
    print([*asked].count(401))
"""
    command = [sys.executable, "-c", APP + code, str(tmp_path)]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert sum(int(process.communicate(timeout=120)[0]) for process in running) == 3


# In the database

Machine = Callable[..., Flask]


@pytest.fixture
def machine(database_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Return a function that makes an app with rate limits of its own, as on another machine."""
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")
    apps = []

    def make(secret: str | None = "s" * 40) -> Flask:
        app = Flask("app")
        app.testing = True
        jwt = {} if secret is None else {"jwt": {"secret": secret}}
        security = {"basic_auth": {"enabled": True}, "lockout": {"attempts": 3, "per": "1h"}, **jwt}
        settings = {"database": {"url": database_url}, "security": security}
        m9m = M9M(app, settings=make_settings(settings), clock=clock)
        app.extensions["m9m"].database.upgrade()
        app.get("/x")(require_auth(lambda: "x"))
        with app.app_context():
            if m9m.users.get("ann") is None:
                m9m.users.create("ann", "correct horse")
        apps.append(app)
        return app

    yield make
    settle()
    for app in apps:
        app.extensions["m9m"].database.close()


def ask(app: Flask, password: str, address: str) -> int:
    sent = {"Authorization": "Basic " + b64encode(f"ann:{password}".encode()).decode()}
    client = app.test_client()
    return client.get("/x", headers=sent, environ_base={"REMOTE_ADDR": address}).status_code


def is_known(app: Flask, address: str) -> bool:
    """Tell whether an owner is let in while strangers guess."""
    for number in range(10):
        ask(app, "guess", f"203.0.113.{number}")
    assert ask(app, "correct horse", "203.0.113.99") == 429
    return ask(app, "correct horse", address) == 200


def write(app: Flask) -> None:
    settle()
    app.extensions["m9m"].identities._feed.write_batches()


def test_other_machines_and_a_restarted_one_know_an_address_from_the_database(
    machine: Machine, clock: Clock
) -> None:
    first = machine()
    assert ask(first, "correct horse", HOME) == 200
    write(first)
    assert not is_known(machine(), "192.0.2.8")
    clock.advance(29 * DAY)
    other = machine()
    assert is_known(other, HOME)
    write(other)
    clock.advance(30 * DAY)
    assert is_known(machine(), HOME)
    clock.advance(DAY)
    assert is_known(machine(), HOME)  # it has just signed in
    clock.advance(31 * DAY)
    assert not is_known(machine(), HOME)


def test_the_database_keeps_the_latest_addresses_of_an_account_and_reads_none(
    machine: Machine, clock: Clock
) -> None:
    app = machine()
    app.extensions["m9m"].identities._feed.catch_up()
    archive = app.extensions["m9m"].identities.lockout.known_addresses._archive
    for number in range(40):
        archive.keep("ann", f"192.0.2.{number}")
        clock.advance(1)
    archive.keep("bob", HOME)
    write(app)
    assert archive.find("bob", HOME) == clock()
    assert [archive.find("ann", f"192.0.2.{n}") is not None for n in (0, 7, 8, 39)] == [
        False,
        False,
        True,
        True,
    ]
    rows = app.extensions["m9m"].database.read(
        lambda transaction: transaction._connection.execute(sa.select(known_addresses)).all()
    )
    assert len(rows) == 33
    assert b"192.0.2" not in b"".join(digest + account for digest, account, _ in rows)
    clock.advance(32 * DAY)
    archive.keep("bob", "192.0.2.9")
    write(app)
    assert archive.find("bob", HOME) is None
    assert archive.find("bob", "192.0.2.9") is not None


def test_without_a_secret_the_database_keeps_no_address(machine: Machine) -> None:
    app = machine(secret=None)
    assert ask(app, "correct horse", HOME) == 200
    write(app)
    assert not is_known(machine(secret=None), HOME)


def test_attempts_at_a_locked_account_ask_the_database_seldom(
    machine: Machine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = machine()
    is_known(app, HOME)
    asked = []
    feed = app.extensions["m9m"].identities._feed
    monkeypatch.setattr(feed, "ask_if_there", lambda *query: asked.append(query) or {})
    clock.advance(10)
    for number in range(100):
        assert ask(app, "guess", f"198.51.100.{number}") == 429
    assert len(asked) == 1


# A place of its own in the shared store


@pytest.mark.skipif(sys.platform == "win32", reason="needs fcntl")
def test_however_many_limits_an_app_uses_failed_attempts_are_counted_by_all_workers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from flask_m9m.ratelimit.stores import limit_stores

    settings = RateLimitSettings(path=str(tmp_path / "limits"))

    def stores() -> Any:
        return limit_stores(settings, ("app", "/"), key=b"", private=False, clock=lambda: 0.0)

    first, second = stores(), stores()
    for number in range(1, 301):
        first.limits.hit(RateLimit(number, 60, 1, f"limit-{number}"), "x")
    assert "different limits" in caplog.text
    attempts = RateLimit(3, 3_600, 3, "attempts-account")
    counted = [first.attempts.hit_all([Want(attempts, "ann")])[-1].admitted for _ in range(3)]
    assert counted == [True] * 3
    assert not second.attempts.hit(attempts, "ann").admitted
    assert (first.limits.failures, first.attempts.failures) == (44, 0)
