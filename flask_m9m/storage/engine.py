"""Engines and connections: made, checked, and used so that an app's own stay as they were."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DatabaseUnavailable, Unwritable
from ..settings import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

BUSY_SECONDS = 5.0
"""Seconds that one waits for another writer."""

_BEGIN = {
    "sqlite": ("BEGIN IMMEDIATE",),
    # The lock is a statement of its own: those after it see what its last holder committed.
    "postgresql": (
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        "SET LOCAL lock_timeout = {patience}",
        f"SELECT pg_advisory_xact_lock({0x6D396D})",  # "m9m"
    ),
}
_SERVER = {"connect_timeout": 5, "tcp_user_timeout": 5_000}  # seconds, milliseconds


def url_of(settings: DatabaseSettings, instance_path: str) -> str:
    """Return the URL that the settings name."""
    if settings.url is not None:
        return settings.url.get_secret_value()
    if settings.type == "postgres" and settings.postgres.url is not None:
        return settings.postgres.url.get_secret_value()
    path = settings.sqlite.path or os.path.join(instance_path, "m9m", "m9m.db")
    return f"sqlite:///{os.path.abspath(path)}"


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL, `None` where there is none.

    Raises:
        DatabaseUnavailable: it is a `file:` URI of SQLite's, of which nobody here would see whether
            the file is there, and so whether anything was revoked.
    """
    scheme, _, rest = url.partition(":///")
    name = rest.partition("?")[0]
    if not scheme.startswith("sqlite") or name in ("", ":memory:"):
        return None
    if name.startswith("file:"):
        raise DatabaseUnavailable("database.url: a path is needed in place of a file: URI")
    return Path(name)


def create(text: str) -> Engine:
    """Make an engine.

    Raises:
        DatabaseUnavailable: the URL is wrong, or its driver is not installed.
    """
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    from sqlalchemy.pool import QueuePool

    try:
        try:
            url = make_url(text)
        except ValueError:  # it names what it takes for a port
            raise ArgumentError("it cannot be read: percent-encode its password") from None
        if "@" in (url.host or ""):
            raise ArgumentError("there is an @ in its host: percent-encode its password")
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() == "postgresql":
            timeouts = {name: most for name, most in _SERVER.items() if name not in url.query}
            return create_engine(
                url, hide_parameters=True, pool_timeout=BUSY_SECONDS, connect_args=timeouts
            )
        if url.get_backend_name() != "sqlite":
            raise ArgumentError("only SQLite and PostgreSQL are known here")
        if url.database in (None, "", ":memory:"):
            # One connection that all threads take in turn: another would be another database.
            return create_engine(
                url,
                hide_parameters=True,
                poolclass=QueuePool,
                pool_size=1,
                max_overflow=0,
                connect_args={"check_same_thread": False},
            )
        return create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})
    except (ArgumentError, NoSuchModuleError) as error:
        raise DatabaseUnavailable(f"database.url: {error}") from None
    except ImportError as error:
        raise DatabaseUnavailable(
            f"database.url needs {error.name} (pip install 'flask-m9m[postgres]')"
        ) from None


def checked(engine: Engine) -> Engine:
    """Return an app's engine where ours can be kept with it.

    Raises:
        DatabaseUnavailable: it is of another kind of database, or gives one connection to several
            at a time: then what the app has not committed yet would be committed with ours.
    """
    from sqlalchemy import Engine
    from sqlalchemy.pool import SingletonThreadPool, StaticPool

    if not isinstance(engine, Engine) or engine.dialect.name not in _BEGIN:
        raise DatabaseUnavailable("engine: only SQLAlchemy's for SQLite and PostgreSQL are known")
    if isinstance(engine.pool, SingletonThreadPool | StaticPool):
        raise DatabaseUnavailable(
            f"engine: its {type(engine.pool).__name__} shares connections, and so transactions: "
            "use a database in a file, or set database.url"
        )
    return engine


@contextmanager
def translated() -> Iterator[None]:
    """Raise `DatabaseUnavailable` in place of what a driver raises where it finds no database.

    The statement and its parameters stay out of messages and tracebacks.
    """
    from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError

    try:
        yield
    except (DataError, UnicodeError) as error:
        raise Unwritable(f"it does not take a value ({type(error).__name__})") from None
    except DBAPIError as error:
        lines = str(error.orig).splitlines() or [type(error.orig).__name__]
        raise DatabaseUnavailable(lines[0]) from None
    except SQLAlchemyError as error:
        raise DatabaseUnavailable(type(error).__name__) from None


@contextmanager
def connected(engine: Engine, patience: float | None = None) -> Iterator[Connection]:
    """Open a connection on which nothing begins by itself; afterwards it is as it was.

    Args:
        engine: whose.
        patience: seconds to wait for other writers of a SQLite file; left out, as it is.
    """
    with engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection
            return
        # Not SQLAlchemy's AUTOCOMMIT: it would leave the driver's default behind, not the app's.
        driver: sqlite3.Connection = connection.connection.dbapi_connection  # type: ignore[assignment]
        level, driver.isolation_level = driver.isolation_level, None
        try:
            connection.begin()
            if driver.in_transaction:  # an event of the app's engine began
                connection.exec_driver_sql("ROLLBACK")
            with _patient(connection, patience):
                yield connection
        finally:
            if not connection.invalidated:
                driver.isolation_level = level


@contextmanager
def _patient(connection: Connection, patience: float | None) -> Iterator[None]:
    if patience is None:
        yield
        return
    before = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(patience * 1_000)}")
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {before}")


@contextmanager
def exclusive(engine: Engine, patience: float = BUSY_SECONDS) -> Iterator[Connection]:
    """Open a transaction that no other of ours runs beside, in any process."""
    from sqlalchemy.exc import DBAPIError

    connection, closing = _begun(engine, patience)
    with closing:
        try:
            yield connection
        except BaseException:
            try:
                connection.exec_driver_sql("ROLLBACK")
            except DBAPIError:
                connection.invalidate()
            raise
        connection.exec_driver_sql("COMMIT")


def _begun(engine: Engine, patience: float) -> tuple[Connection, AbstractContextManager[object]]:
    """Return a connection that has the lock, and what closes it; a lost one is made anew."""
    from sqlalchemy.exc import DBAPIError

    for attempt in (1, 2):
        with ExitStack() as stack:
            connection = stack.enter_context(connected(engine, patience))
            try:
                for statement in _BEGIN[engine.dialect.name]:
                    connection.exec_driver_sql(statement.format(patience=int(patience * 1_000)))
            except DBAPIError as error:
                if attempt == 2 or not error.connection_invalidated:
                    raise
            else:
                return connection, stack.pop_all()
    raise AssertionError


def write_ahead(engine: Engine) -> None:
    """Have SQLite keep a log ahead of its file; it does not wait for others by itself here."""
    from sqlalchemy.exc import OperationalError

    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with connected(engine) as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except OperationalError as error:
            busy = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
