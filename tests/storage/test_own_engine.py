"""An app's own engine, `M9M(app, engine=…)`: what it does besides goes on undisturbed."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, current_app

from flask_m9m import M9M, require_auth
from flask_m9m.auth.api_key_format import make_key
from flask_m9m.errors import DatabaseUnavailable
from flask_m9m.settings import settings_of
from flask_m9m.storage import Database
from flask_m9m.testing import Clock, make_settings
from tests.databases import settle

Given = Any
Secure = Callable[[Given], tuple[Flask, M9M]]


@pytest.fixture
def secure(clock: Clock) -> Iterator[Secure]:
    """Return a function that makes an app over an engine of its own."""
    apps = []

    def make(engine: Given) -> tuple[Flask, M9M]:
        app = Flask("app")
        m9m = M9M(app, settings=make_settings(), clock=clock, engine=engine)
        app.extensions["m9m"].database.upgrade()
        app.add_url_rule("/x", "x", require_auth(lambda: "x"))
        apps.append(app)
        return app, m9m

    yield make
    settle()
    for app in apps:
        app.extensions["m9m"].database._connected().dispose()


def new_key(app: Flask, m9m: M9M) -> str:
    with app.app_context():
        return m9m.api_keys.create("ci", "ann")[1]


def status(app: Flask, key: str) -> int:
    return app.test_client().get("/x", headers={"X-API-Key": key}).status_code


@pytest.mark.parametrize("pool", [sa.StaticPool, sa.pool.SingletonThreadPool])
def test_an_engine_that_shares_its_connections_is_refused(pool: type[sa.Pool]) -> None:
    engine = sa.create_engine("sqlite://", poolclass=pool)

    with pytest.raises(DatabaseUnavailable, match=f"{pool.__name__} shares connections"):
        Database(settings_of({}).database, "", engine).upgrade()


@pytest.mark.parametrize("given", [sa.create_mock_engine("mysql://", print), object(), "sqlite://"])
def test_what_is_no_engine_for_our_tables_is_refused(given: Any) -> None:
    with pytest.raises(DatabaseUnavailable, match="engine must be"):
        Database(settings_of({}).database, "", given).upgrade()


def test_an_engine_is_asked_for_inside_the_apps_context(
    secure: Secure, database_url: str, tmp_path: Path
) -> None:
    if database_url.startswith("sqlite"):
        database_url = f"sqlite:///{tmp_path}/app.db"
    engine, seen = sa.create_engine(database_url), []

    def of_app() -> sa.Engine:
        seen.append(current_app.name)
        return engine

    app, m9m = secure(of_app)
    assert status(app, new_key(app, m9m)) == 200
    assert set(seen) == {"app"}


def test_a_connection_goes_back_as_it_was(secure: Secure, tmp_path: Path) -> None:
    engine = sa.create_engine(
        f"sqlite:///{tmp_path}/app.db", connect_args={"timeout": 30}, pool_size=1, max_overflow=0
    )

    @sa.event.listens_for(engine, "connect")
    def begin_by_hand(driver: sqlite3.Connection, record: object) -> None:
        driver.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    app, m9m = secure(engine)
    assert status(app, new_key(app, m9m)) == 200
    app.extensions["m9m"].identities.api_keys._feed.write_batches()
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        assert driver.isolation_level is None
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
        assert driver.in_transaction


def test_what_the_app_has_not_committed_is_not_committed_by_a_request(
    secure: Secure, database_url: str, tmp_path: Path
) -> None:
    if database_url.startswith("sqlite"):
        database_url = f"sqlite:///{tmp_path}/app.db"
    engine = sa.create_engine(database_url)
    app, m9m = secure(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE mine (a INTEGER)")
    key = new_key(app, m9m)
    with engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO mine VALUES (1)")
        assert status(app, key) == 200
        connection.rollback()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM mine").scalar() == 0


def test_a_file_that_the_app_has_locked_keeps_no_request_waiting(
    secure: Secure, tmp_path: Path, clock: Clock
) -> None:
    app, m9m = secure(sa.create_engine(f"sqlite:///{tmp_path}/app.db"))
    key = new_key(app, m9m)
    assert status(app, key) == 200
    holder = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    clock.advance(2.0)
    begun = time.monotonic()
    found = status(app, key)
    waited = time.monotonic() - begun
    holder.close()

    assert found == 200
    assert waited < 2.5  # of the 5 that SQLite waits; 250 ms on an idle machine


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_has_connections_of_its_own(
    secure: Secure, postgres_url: str, clock: Clock
) -> None:
    import os
    import signal

    app, m9m = secure(sa.create_engine(postgres_url))
    assert status(app, new_key(app, m9m)) == 200

    def unknown_keys() -> set[int]:
        return {status(app, make_key("m9m_sk_")) for _ in range(100)}

    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if unknown_keys() <= {401, 429} else 1)
    found: set[int] = set()
    thread = threading.Thread(target=lambda: found.update(unknown_keys()))
    thread.start()
    thread.join(30)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert found <= {401, 429}
    assert not thread.is_alive()
