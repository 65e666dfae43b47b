"""SQLAlchemy engines and connections: database URLs, drivers, locks, and SQLite's settings."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DatabaseUnavailable, Unwritable
from ..settings.database import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

BUSY_SECONDS = 5.0
"""Seconds to wait for other writers."""

_BEGIN = {
    "sqlite": ("BEGIN IMMEDIATE",),
    # A separate statement takes the lock: later ones then see what its last holder committed.
    "postgresql": (
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        "SET LOCAL lock_timeout = {patience}",
        f"SELECT pg_advisory_xact_lock({0x6D396D})",  # "m9m"
    ),
}
_ASYNC_DRIVERS = ("asyncpg", "psycopg_async", "aiopg")
_TIMEOUTS = {"connect_timeout": 5, "tcp_user_timeout": 5_000}  # seconds, milliseconds


def url_of(settings: DatabaseSettings, instance_path: str) -> str:
    """Return the database URL that the settings give, by default of a SQLite file.

    Args:
        settings: the settings under `database`.
        instance_path: the app's instance folder, where the default file is.
    """
    if settings.url is not None:
        return settings.url.get_secret_value()
    if settings.type == "postgres" and settings.postgres.url is not None:
        return settings.postgres.url.get_secret_value()
    path = settings.sqlite.path or os.path.join(instance_path, "m9m", "m9m.db")
    return f"sqlite:///{os.path.abspath(path)}"


def sqlite_path(url: str) -> Path | None:
    """Return the file of a SQLite URL, or `None` for servers and databases in memory.

    Raises:
        DatabaseUnavailable: the URL contains a `file:` URI. Whether its file exists, and so whether
            anything was revoked, could not be checked.
    """
    scheme, _, rest = url.partition(":///")
    name = rest.partition("?")[0]
    if not scheme.startswith("sqlite") or name in ("", ":memory:"):
        return None
    if name.startswith("file:"):
        raise DatabaseUnavailable(
            "database.url must name a SQLite file by its path, not by a file: URI"
        )
    return Path(name)


def create_engine_of(url: str, settings: DatabaseSettings) -> Engine:
    """Create an engine for a database URL.

    Args:
        url: the URL.
        settings: the settings of the pool, for a server.

    Raises:
        DatabaseUnavailable: the URL is invalid, or its driver is not installed.
    """
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    from sqlalchemy.pool import QueuePool

    try:
        try:
            parsed = make_url(url)
        except ValueError:  # its message shows part of a password as the port
            raise ArgumentError(
                "the URL is not valid: special characters in its password must be percent-encoded"
            ) from None
        if "@" in (parsed.host or ""):
            raise ArgumentError("the URL has an @ in its host: percent-encode the password")
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "postgresql":
            return _postgres_engine(parsed, settings)
        if parsed.get_backend_name() != "sqlite":
            raise ArgumentError("the database must be SQLite or PostgreSQL")
        if parsed.database in (None, "", ":memory:"):
            # All threads share one connection in turn: a second would open another database.
            return create_engine(
                parsed,
                hide_parameters=True,
                poolclass=QueuePool,
                pool_size=1,
                max_overflow=0,
                connect_args={"check_same_thread": False},
            )
        return create_engine(parsed, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})
    except (ArgumentError, NoSuchModuleError) as error:
        raise DatabaseUnavailable(f"database.url: {error}") from None
    except ImportError as error:
        remedy = "pip install 'flask-m9m[postgres]'"
        if error.name != "psycopg":
            remedy = f"install it, or write postgresql:// and {remedy}"
        raise DatabaseUnavailable(
            f"database.url needs the package {error.name}: {remedy}"
        ) from None


def _postgres_engine(url: URL, settings: DatabaseSettings) -> Engine:
    """Create an engine for PostgreSQL.

    Raises:
        ArgumentError: the driver is asynchronous.
        ImportError: the driver is not installed.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError

    if url.get_driver_name() in _ASYNC_DRIVERS:
        raise ArgumentError(
            f"the driver {url.get_driver_name()} is asynchronous, and cannot be used here: write "
            "postgresql://, which takes psycopg"
        )
    arguments: dict[str, object] = {
        name: value for name, value in _TIMEOUTS.items() if name not in url.query
    }
    if url.get_driver_name() == "psycopg":
        # A pooler may give each transaction another connection, which lacks prepared statements.
        arguments["prepare_threshold"] = None
    return create_engine(
        url,
        hide_parameters=True,
        pool_size=settings.pool_size,
        max_overflow=2 * settings.pool_size,
        pool_timeout=settings.pool_timeout,
        connect_args=arguments,
    )


def check_engine(engine: Engine) -> Engine:
    """Check that our tables can use an app's own engine, and return it.

    Raises:
        DatabaseUnavailable: it is no engine for SQLite or PostgreSQL, or it gives the same
            connection to several users at a time. Our commit would then also commit what the app
            has not committed yet.
    """
    from sqlalchemy import Engine
    from sqlalchemy.pool import SingletonThreadPool, StaticPool

    if not isinstance(engine, Engine) or engine.dialect.name not in _BEGIN:
        raise DatabaseUnavailable("engine must be a SQLAlchemy Engine for SQLite or PostgreSQL")
    if isinstance(engine.pool, SingletonThreadPool | StaticPool):
        raise DatabaseUnavailable(
            f"the engine's {type(engine.pool).__name__} shares connections, and so transactions: "
            "give an engine for a database file, or set database.url"
        )
    return engine


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise `DatabaseUnavailable` in place of the errors of SQLAlchemy and its drivers.

    Statements and their parameters stay out of messages and tracebacks.

    Raises:
        Unwritable: the database refuses a value.
        DatabaseUnavailable: any other error of the database.
    """
    from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError

    try:
        yield
    except (DataError, UnicodeError) as error:
        raise Unwritable(f"it refuses a value ({type(error).__name__})") from None
    except DBAPIError as error:
        lines = str(error.orig).splitlines() or [type(error.orig).__name__]
        raise DatabaseUnavailable(lines[0]) from None
    except SQLAlchemyError as error:
        raise DatabaseUnavailable(type(error).__name__) from None


@contextmanager
def open_connection(engine: Engine, patience: float | None = None) -> Iterator[Connection]:
    """Open a connection that begins no transaction automatically, and restore its settings.

    Args:
        engine: the engine to connect with.
        patience: seconds to wait for other writers of a SQLite file; `None`: as the engine sets it.
    """
    with engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            connection.execution_options(isolation_level="AUTOCOMMIT")
            yield connection
            return
        # Not SQLAlchemy's AUTOCOMMIT: it would restore the driver's default, not the app's level.
        driver: sqlite3.Connection = connection.connection.dbapi_connection  # type: ignore[assignment]
        level, driver.isolation_level = driver.isolation_level, None
        try:
            connection.begin()
            if driver.in_transaction:  # an event handler of the app's engine began it
                connection.exec_driver_sql("ROLLBACK")
            with _set_busy_timeout(connection, patience):
                yield connection
        finally:
            if not connection.invalidated:
                driver.isolation_level = level


@contextmanager
def _set_busy_timeout(connection: Connection, patience: float | None) -> Iterator[None]:
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
def begin_exclusive(engine: Engine, patience: float = BUSY_SECONDS) -> Iterator[Connection]:
    """Open a transaction under a lock that all processes share, and commit it.

    Args:
        engine: the engine to connect with.
        patience: seconds to wait for the lock.
    """
    from sqlalchemy.exc import DBAPIError

    connection, closing = _take_lock(engine, patience)
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


def _take_lock(
    engine: Engine, patience: float
) -> tuple[Connection, AbstractContextManager[object]]:
    """Begin a transaction that holds the lock, with a second attempt if the connection is lost.

    Returns:
        The connection, and a context manager that closes it.
    """
    from sqlalchemy.exc import DBAPIError

    for attempt in (1, 2):
        with ExitStack() as stack:
            connection = stack.enter_context(open_connection(engine, patience))
            try:
                for statement in _BEGIN[engine.dialect.name]:
                    connection.exec_driver_sql(statement.format(patience=int(patience * 1_000)))
            except DBAPIError as error:
                if attempt == 2 or not error.connection_invalidated:
                    raise
            else:
                return connection, stack.pop_all()
    raise AssertionError


def enable_write_ahead_log(engine: Engine) -> None:
    """Switch a SQLite file to its write-ahead log (WAL).

    SQLite's own timeout does not apply to this switch, so it is repeated while the file is busy.
    """
    from sqlalchemy.exc import OperationalError

    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with open_connection(engine) as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except OperationalError as error:
            busy = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
