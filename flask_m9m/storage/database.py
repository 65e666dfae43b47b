"""Database: the engine, opened when it is first needed in the process that needs it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import DatabaseUnavailable, SchemaError
from ..settings import DatabaseSettings
from . import forking

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from .transaction import Transaction

logger = logging.getLogger("flask_m9m")

T = TypeVar("T")

_BEGIN = {
    "sqlite": ("PRAGMA busy_timeout = {patience}", "BEGIN IMMEDIATE"),
    # The lock is a statement of its own: those after it see what its last holder committed.
    "postgresql": (
        "BEGIN ISOLATION LEVEL READ COMMITTED",
        "SET LOCAL lock_timeout = {patience}",
        f"SELECT pg_advisory_xact_lock({0x6D396D})",  # "m9m"
    ),
}
_BUSY_SECONDS = 5.0  # that one waits for another writer


class Database:
    """One app's database.

    Reading never makes one: an app that keeps nothing has none. Writing makes SQLite's file
    where it is missing; a server's schema is made by `flask m9m db upgrade` alone.

    Args:
        settings: where it is.
        instance_path: the folder of the file that is used where they say nothing.
        engine: the app's own, or a function that returns it, in place of the settings.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        instance_path: str,
        engine: Engine | Callable[[], Engine] | None = None,
    ) -> None:
        self._url = _url(settings, instance_path)
        self._given = engine
        self._engine: Engine | None = None
        self._file: Path | None = None
        self._opened: tuple[int, int] | None = None
        self._ready = False
        self._lock = threading.RLock()
        forking.watch(self)

    @property
    def local(self) -> bool:
        """Whether it is SQLite, whose answers do not keep a request waiting."""
        if self._given is None:
            return self._url.startswith("sqlite")
        return self._connected().dialect.name == "sqlite"

    # Reading and writing

    def present(self) -> bool:
        """Tell whether there is a database with our tables, opening it where there is.

        Raises:
            DatabaseUnavailable: it cannot be reached, or its schema is not ours.
        """
        if self._ready and not self._moved():
            return True
        with self._lock:
            if self._moved():
                self.close()
            if self._ready:
                return True
            if self._given is None and not self._exists():
                if self._file is not None:
                    raise DatabaseUnavailable(f"{self._file} is gone")
                return False
            with translated():
                engine = self._connected()
                self._ready = self._has_schema(engine)
            return self._ready

    def read(self, query: Callable[[Transaction], T]) -> T:
        """Return what a query finds; where the connection was lost before, it is asked again.

        Raises:
            DatabaseUnavailable: it cannot be reached, or has none of our tables.
        """
        from sqlalchemy.exc import DBAPIError

        from .transaction import Transaction

        if not self.present():
            raise SchemaError("there is no database yet")
        with translated():
            engine = self._connected()
            for attempt in (1, 2):
                try:
                    with engine.connect() as connection:
                        connection.execution_options(isolation_level="AUTOCOMMIT")
                        return query(Transaction(connection))
                except DBAPIError as error:
                    if attempt == 2 or not error.connection_invalidated:
                        raise
        raise AssertionError

    @contextmanager
    def write(self, patience: float = _BUSY_SECONDS) -> Iterator[Transaction]:
        """Open a transaction in which changes are made, one at a time in all processes.

        The lock is what makes the order of the feed's ids the order in which changes become
        visible: without it a reader can pass over a lower id that is committed later.

        Args:
            patience: seconds to wait for other writers.

        Raises:
            DatabaseUnavailable: it cannot be reached or made; nothing was changed.
        """
        from .transaction import Transaction

        with translated():
            self._make()
            with _exclusive(self._connected(), patience) as connection:
                yield Transaction(connection)

    # The schema

    def upgrade(self) -> tuple[str | None, str]:
        """Bring the schema to the newest version; return the versions before and after.

        Raises:
            DatabaseUnavailable: it cannot be reached or made.
            SchemaError: a newer version of the package made it; nothing was changed.
        """
        from . import schema

        with self._lock, translated():
            self._create_file()
            with _exclusive(self._connected()) as connection:
                before = schema.version(connection)
                if schema.is_newer(before):
                    raise _too_new(before)
                if before != schema.NEWEST:
                    schema.upgrade(connection)
            self._ready = True
            return before, schema.NEWEST

    def status(self) -> tuple[str, str | None, str]:
        """Return where it is, the version of its schema, and the newest one.

        Raises:
            DatabaseUnavailable: it cannot be reached.
        """
        from . import schema

        with self._lock, translated():
            if self._given is None and not self._exists():
                return self.where(), None, schema.NEWEST
            with self._connected().connect() as connection:
                return self.where(), schema.version(connection), schema.NEWEST

    def where(self) -> str:
        """Return its URL without a password."""
        from sqlalchemy import make_url

        url = make_url(self._url) if self._given is None else self._connected().url
        return url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close every connection; the next use opens it anew."""
        with self._lock:
            engine, self._engine, self._opened, self._ready = self._engine, None, None, False
            if engine is not None and self._given is None:
                engine.dispose()

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent."""
        self._lock = threading.RLock()
        engine, self._engine, self._ready = self._engine, None, False
        if engine is not None and self._given is None:
            engine.dispose(close=False)

    # Opening

    def _make(self) -> None:
        """Make SQLite's file and tables where they are missing."""
        if not self.present():
            if not self.local:
                raise SchemaError("its tables are not there: run flask m9m db upgrade")
            self.upgrade()

    def _has_schema(self, engine: Engine) -> bool:
        from . import schema

        with engine.connect() as connection:
            found = schema.version(connection)
        if found == schema.NEWEST:
            return True
        if schema.is_newer(found):
            raise _too_new(found)
        if found is None:
            return False
        if not self.local:
            raise SchemaError(f"its schema is {found}: run flask m9m db upgrade")
        self.upgrade()
        return True

    def _connected(self) -> Engine:
        with self._lock:
            if self._engine is None:
                if self._given is None:
                    self._engine = self._create_engine()
                else:
                    self._engine = self._given() if callable(self._given) else self._given
            return self._engine

    def _create_engine(self) -> Engine:
        from sqlalchemy import create_engine, make_url
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError
        from sqlalchemy.pool import QueuePool

        try:
            url = make_url(self._url)
            if url.drivername in ("postgres", "postgresql"):
                url = url.set(drivername="postgresql+psycopg")
            if url.get_backend_name() == "postgresql":
                return create_engine(url, hide_parameters=True)
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
            self._file = Path(str(url.database))
            self._opened = _inode(self._file)
            return create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_SECONDS})
        except (ArgumentError, NoSuchModuleError) as error:
            raise DatabaseUnavailable(f"database.url: {error}") from None
        except ImportError as error:
            raise DatabaseUnavailable(
                f"database.url needs {error.name} (pip install 'flask-m9m[postgres]')"
            ) from None

    def _exists(self) -> bool:
        """Tell whether there is something to open; a server is asked by opening it."""
        path = _sqlite_path(self._url)
        if path is None:
            return not self.local or self._engine is not None
        return path.exists()

    def _moved(self) -> bool:
        """Tell whether the file that is open is no longer the one that stands there."""
        return self._file is not None and self._opened not in (None, _inode(self._file))

    def _create_file(self) -> None:
        """Make the file, readable by its owner alone, and have SQLite keep a log ahead of it."""
        path = _sqlite_path(self._url) if self._given is None else None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise DatabaseUnavailable(
                f"{path} cannot be written ({error.strerror}): set database.url"
            ) from None
        self._file, self._opened = path, _inode(path)
        with self._connected().connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")


@contextmanager
def translated() -> Iterator[None]:
    """Raise `DatabaseUnavailable` in place of what a driver raises where it finds no database.

    The statement and its parameters stay out of messages and tracebacks.
    """
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    try:
        yield
    except DBAPIError as error:
        lines = str(error.orig).splitlines() or [type(error.orig).__name__]
        raise DatabaseUnavailable(lines[0]) from None
    except SQLAlchemyError as error:
        raise DatabaseUnavailable(type(error).__name__) from None


@contextmanager
def _exclusive(engine: Engine, patience: float = _BUSY_SECONDS) -> Iterator[Connection]:
    """Open a transaction that no other of ours runs beside, in any process."""
    from sqlalchemy.exc import DBAPIError

    with _begun(engine, patience) as connection:
        try:
            yield connection
        except BaseException:
            try:
                connection.exec_driver_sql("ROLLBACK")
            except DBAPIError:
                connection.invalidate()
            raise
        connection.exec_driver_sql("COMMIT")


def _begun(engine: Engine, patience: float) -> Connection:
    """Return a connection that has begun and has the lock; one that was lost is made anew.

    The driver does not begin by itself: SQLite's would do so later, with the first change.
    """
    from sqlalchemy.exc import DBAPIError

    for attempt in (1, 2):
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            connection.begin()
            if getattr(connection.connection.dbapi_connection, "in_transaction", False):
                connection.exec_driver_sql("ROLLBACK")  # an event of the app's engine began
            for statement in _BEGIN[engine.dialect.name]:
                connection.exec_driver_sql(statement.format(patience=int(patience * 1_000)))
        except DBAPIError as error:
            connection.close()
            if attempt == 2 or not error.connection_invalidated:
                raise
        else:
            return connection
    raise AssertionError


def _url(settings: DatabaseSettings, instance_path: str) -> str:
    if settings.url is not None:
        return settings.url.get_secret_value()
    if settings.type == "postgres" and settings.postgres.url is not None:
        return settings.postgres.url.get_secret_value()
    path = settings.sqlite.path or os.path.join(instance_path, "m9m", "m9m.db")
    return f"sqlite:///{os.path.abspath(path)}"


def _sqlite_path(url: str) -> Path | None:
    scheme, _, rest = url.partition(":///")
    name = rest.partition("?")[0]
    if not scheme.startswith("sqlite") or name in ("", ":memory:"):
        return None
    return Path(name)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _too_new(found: str | None) -> SchemaError:
    return SchemaError(f"its schema is {found}, made by a newer flask-m9m: upgrade the package")
