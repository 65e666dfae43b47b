"""No password, key or token is kept or told, whatever is done with it and whatever fails."""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import subprocess
import sys
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
import sqlalchemy as sa

from flask_m9m.settings import settings_of
from flask_m9m.storage import Database
from flask_m9m.testing import Clock
from tests.databases import settle
from tests.extension.credentials import Life, make_app
from tests.traces import WINDOW, Traces

ROOT = Path(__file__).parents[2]
SCRYPT = "scrypt:1024:8:1"
TABLES = {"m9m_users", "m9m_api_keys", "m9m_sessions", "m9m_revocations", "m9m_changes"}


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", SCRYPT)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that is logged, however unimportant."""
    echoes = logging.getLogger("sqlalchemy")
    before = echoes.handlers[:]
    for name in (None, "sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool", "psycopg", "werkzeug"):
        caplog.set_level(logging.DEBUG, name)
    yield caplog
    echoes.handlers[:] = before


@contextmanager
def failing(url: str, how: str) -> Iterator[None]:
    """Have every write to a database fail, or keep everybody out."""
    with _failing_sqlite(url, how) if url.startswith("sqlite") else _failing_postgres(url, how):
        yield


@contextmanager
def _failing_sqlite(url: str, how: str) -> Iterator[None]:
    path = Path(url.removeprefix("sqlite:///"))
    if how == "gone":
        moved = path.rename(path.with_name("moved"))
        path.mkdir()
        yield
        path.rmdir()
        moved.rename(path)
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        if how == "locked":
            holder.execute("BEGIN EXCLUSIVE")
        else:
            for table in TABLES:
                for act in ("INSERT", "UPDATE"):
                    holder.execute(
                        f"CREATE TRIGGER {act}_{table} BEFORE {act} ON {table} "
                        "BEGIN SELECT RAISE(ABORT, 'no'); END"
                    )
        yield
        if how == "locked":
            holder.execute("ROLLBACK")
        else:
            for (name,) in holder.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                holder.execute(f"DROP TRIGGER {name}")


@contextmanager
def _failing_postgres(url: str, how: str) -> Iterator[None]:
    name = sa.make_url(url).database
    server = sa.create_engine(
        sa.make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT"
    )
    on, off = {
        "gone": ("ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true"),
        "locked": ("SET lock_timeout = 1", "RESET lock_timeout"),
        "refusing": (
            "SET default_transaction_read_only = on",
            "RESET default_transaction_read_only",
        ),
    }[how]
    with server.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} {on}")
        connection.exec_driver_sql(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        if how == "locked":
            holding = sa.create_engine(url)
            with holding.connect() as holder:
                holder.exec_driver_sql(f"SELECT pg_advisory_xact_lock({0x6D396D})")
                yield
            holding.dispose()
        else:
            yield
        connection.exec_driver_sql(f"ALTER DATABASE {name} {off}")
    server.dispose()


def kept(url: str) -> list[tuple[str, bytes]]:
    """Return all that a database keeps: its rows, and the files with them and what came before."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = [
            (table, b"\n".join(one if isinstance(one, bytes) else str(one).encode() for one in row))
            for table in sa.inspect(connection).get_table_names()
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}")
        ]
        files = _files_of(connection, url)
        read = [(file.name, file.read_bytes()) for file in files if file.is_file()]
    engine.dispose()
    return rows + read


def _files_of(connection: sa.Connection, url: str) -> list[Path]:
    """Return a database's files; those of a server elsewhere are not there to be read."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        return [path.with_name(path.name + end) for end in ("", "-wal", "-shm")]
    connection.exec_driver_sql("CHECKPOINT")
    directory = Path(str(connection.exec_driver_sql("SHOW data_directory").scalar()))
    number = connection.exec_driver_sql(
        "SELECT oid FROM pg_database WHERE datname = current_database()"
    ).scalar()
    patterns = (f"base/{number}/*", "pg_wal/0*", "log*", "log/*")
    return [file for pattern in patterns for file in directory.glob(pattern)]


def told(records: list[logging.LogRecord]) -> Iterator[tuple[str, str]]:
    """Yield all that records say: as they are written, and their parts."""
    written = logging.Formatter("%(name)s %(message)s")
    for record in records:
        yield f"log {record.name}", written.format(record)
        yield f"log {record.name}", f"{record.msg} {record.args} {record.exc_text}"


def raised(errors: list[BaseException]) -> Iterator[tuple[str, str]]:
    """Yield all that errors say, those that they hide behind them too."""
    for error in errors:
        yield "traceback", "".join(traceback.format_exception(error))
        one: BaseException | None = error
        while one is not None:
            yield type(one).__name__, f"{one!r} {one} {one.args}"
            one = one.__cause__ or one.__context__


def write_soon(database: Database) -> None:
    """Write without waiting for others, what the database may refuse."""
    with database.write(patience=0.05) as transaction:
        transaction.append_change("test", "", datetime.now(UTC))


@pytest.mark.parametrize("own", [False, True], ids=["of the settings", "of the app"])
def test_no_secret_is_kept_or_told(
    database_url: str,
    own: bool,
    tmp_path: Path,
    clock: Clock,
    logged: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if database_url.startswith("sqlite"):
        database_url = f"sqlite:///{tmp_path}/m9m.db"
        url, password = database_url, secrets.token_urlsafe(24)
    else:
        password = secrets.token_urlsafe(24)  # nobody asks for it over a socket
        url = sa.make_url(database_url).set(password=password).render_as_string(False)
    engine = sa.create_engine(url, echo="debug") if own else None
    secret = secrets.token_urlsafe(48)
    app, m9m = make_app(clock, secret, engine, database={"url": url})
    database = app.extensions["m9m"].database
    database.upgrade()
    if own and database_url.startswith("sqlite"):
        with closing(sqlite3.connect(tmp_path / "m9m.db")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    life = Life(app, m9m, clock)
    life.secrets |= {"secret": secret, "the database's password": password}
    life.lead()
    settle()
    for how in ("refusing", "locked", "gone"):
        failures = len(life.errors)
        database._connected().dispose()
        with failing(database_url, how):
            clock.advance(2.0)
            life.statuses("/x")
            for write in () if how == "locked" else life.writes():
                life.raises(write)
            life.raises(lambda: write_soon(database))
            clock.advance(60.0)  # past `max_staleness`
            found = life.statuses("/x")
            settle()
        database._connected().dispose()
        clock.advance(2.0)
        assert len(life.errors) > failures, how
        if how == "gone":
            assert found["key, good"] == 503
    assert life.statuses("/x")["key, good"] == 200
    settle()

    traces = Traces(life.secrets)
    state = app.extensions["m9m"]
    objects = [*life.objects, state.loaded.settings, state.loaded, state.guard, database.where()]
    objects += [state.loaded.settings.model_dump_json(), vars(state.loaded.settings)]
    stored = kept(database_url)
    places: list[tuple[str, bytes | str]] = [
        *stored,
        *told(logged.records),
        *raised(life.errors),
        *((type(one).__name__, f"{one!r} {one}") for one in objects),
        *zip(("stdout", "stderr"), capfd.readouterr(), strict=True),
    ]
    database._connected().dispose()
    found_in = {(place, name) for place, data in places for name in traces.found_in(data)}
    assert found_in == set()
    # So much was looked at that a trace would have been seen.
    assert {place for place, _ in places} >= {*TABLES, "log app", "log sqlalchemy.engine.Engine"}
    assert {type(error).__name__ for error in life.errors} >= {"DatabaseUnavailable", "Conflict"}
    assert any(SCRYPT.encode() in data for _, data in stored)


def test_what_a_killed_process_leaves_has_no_secret(database_url: str, tmp_path: Path) -> None:
    if database_url.startswith("sqlite"):
        database_url = f"sqlite:///{tmp_path}/m9m.db"
    command = [sys.executable, "-m", "tests.extension.credentials", database_url]
    died = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert died.returncode == -9, died.stderr
    found = json.loads(died.stdout)
    left = [*kept(database_url), ("stderr", died.stderr.encode())]
    if database_url.startswith("sqlite"):
        assert all(dict(left)[f"m9m.db{end}"] for end in ("", "-wal", "-shm"))
    traces = Traces(found)
    assert {(place, name) for place, data in left for name in traces.found_in(data)} == set()
    assert {place for place, _ in left} >= TABLES


def test_a_planted_secret_is_found_in_rows_and_files(database_url: str, tmp_path: Path) -> None:
    if database_url.startswith("sqlite"):
        database_url = f"sqlite:///{tmp_path}/m9m.db"
    planted = secrets.token_urlsafe(24)
    database = Database(settings_of({"database": {"url": database_url}}).database, "")
    database.upgrade()
    with database.write() as transaction:
        transaction.append_change("test", f"x{planted[3 : 3 + WINDOW]}x", datetime.now(UTC))
    stored, traces = kept(database_url), Traces({"planted": planted})
    database.close()
    found = {place for place, data in stored if traces.found_in(data)}
    assert "m9m_changes" in found
    files = {place for place, _ in stored if not place.startswith("m9m_")}
    assert not files or found > {"m9m_changes"}


@pytest.mark.parametrize("place", ["log", "traceback", "error"])
def test_a_planted_secret_is_found_in_what_is_told(
    place: str, logged: pytest.LogCaptureFixture
) -> None:
    planted = secrets.token_urlsafe(24)
    error = ValueError(f"it is {planted}")
    logging.getLogger("app").debug("%s", b64encode(f"ann:{planted}".encode()).decode())
    logging.getLogger("app").debug("failed", exc_info=error)
    traces = Traces({"planted": planted})
    said = {
        "log": list(told(logged.records)),
        "traceback": list(raised([error]))[:1],
        "error": list(raised([error]))[1:],
    }[place]
    assert all(traces.found_in(text) for _, text in said if "failed" not in text)
    assert any(traces.found_in(text) for _, text in said)


@pytest.mark.parametrize("before", range(4))
def test_a_secret_is_found_in_every_form_and_its_hash_is_not(before: int) -> None:
    planted = secrets.token_urlsafe(24)
    octets = (f"{'a' * before}" + planted).encode()
    traces = Traces({"planted": planted})
    for form in (octets, b64encode(octets), urlsafe_b64encode(octets), octets.hex().encode()):
        assert traces.found_in(b"\0" + form + b"\xff") == {"planted"}
        assert traces.found_in(form[20 : 20 + WINDOW]) == {"planted"}
    assert traces.found_in(planted[: WINDOW - 1] + " ") == set()
    assert traces.found_in(sha256(octets).digest() + sha256(octets).hexdigest().encode()) == set()
