"""Database: opens the database on first use; transactions, and upgrades of its schema."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import DatabaseUnavailable, SchemaError
from ..processes.fair_lock import FairLock
from ..processes.forking import watch
from ..settings.database import DatabaseSettings
from .engine import (
    BUSY_SECONDS,
    begin_exclusive,
    check_engine,
    create_engine_of,
    enable_write_ahead_log,
    open_connection,
    sqlite_path,
    translate_errors,
    url_of,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .transaction import Transaction

logger = logging.getLogger("flask_m9m")

T = TypeVar("T")

_MISSING = "its tables do not exist: run flask m9m db upgrade, or set database.upgrade: true"


class Database:
    """An app's database, connected when it is first used.

    Reads never create a database. The first write creates a missing SQLite file and its tables, but
    not the folder of a file that the settings name: where it is missing, a volume is not mounted.
    On a server, only `flask m9m db upgrade` creates the tables.

    Args:
        settings: the settings under `database`.
        instance_path: the app's instance folder, where the default SQLite file is.
        engine: the app's own engine, or a function that returns it, in place of the settings.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        instance_path: str,
        engine: Engine | Callable[[], Engine] | None = None,
    ) -> None:
        self._settings = settings
        self._url = url_of(settings, instance_path)
        self._is_default = self._url == url_of(DatabaseSettings(), instance_path)
        self._given = engine
        self._engine: Engine | None = None
        self._file: Path | None = None
        self._opened: tuple[int, int] | None = None
        self._ready = False
        self._lock = threading.RLock()
        self._writers = FairLock()
        watch(self)

    @property
    def local(self) -> bool:
        """Whether it is a SQLite database of our own, whose reads need no time limit."""
        return self._given is None and self._url.startswith("sqlite")

    @property
    def creates_own_schema(self) -> bool:
        """Whether its tables are created and upgraded automatically, as on SQLite."""
        # Decided by the URL where possible, because a connection would create the file.
        return self.local or self._connected().dialect.name == "sqlite"

    @property
    def upgrades_itself(self) -> bool:
        """Whether its tables are created and upgraded when they are needed."""
        return self.creates_own_schema or self._settings.upgrade

    def require_schema(self) -> None:
        """Check at a start that the tables can be used; upgrade them if the settings say so.

        Raises:
            SchemaError: the tables of a server are missing, or of another version.
            DatabaseUnavailable: the database cannot be reached, or its driver is missing.
        """
        if self.creates_own_schema:
            self.status()
        elif self._settings.upgrade:
            self.upgrade()
        else:
            self.is_there()

    def is_there(self) -> bool:
        """Tell whether the tables exist, or nothing is stored because no write has made them yet.

        Raises:
            SchemaError: it is a server, whose tables no write makes: what is stored is not known.
            DatabaseUnavailable: as for `present`.
        """
        if self.present():
            return True
        if not self.upgrades_itself:
            raise SchemaError(_MISSING)
        return False

    # Reading and writing

    def present(self) -> bool:
        """Tell whether the database and our tables exist, and open the database if it does.

        Raises:
            DatabaseUnavailable: it cannot be reached, or its schema is of another version.
        """
        if self._ready and not self._was_replaced():
            return True
        with self._lock:
            if self._was_replaced():
                self.close()
            if self._ready:
                return True
            if self._given is None and not self._exists():
                if self._file is not None:
                    raise DatabaseUnavailable(f"the file {self._file} no longer exists")
                self._check_folder()
                return False
            with translate_errors():
                engine = self._connected()
                self._ready = self._has_schema(engine)
            return self._ready

    def read(self, query: Callable[[Transaction], T]) -> T:
        """Run a query and return its result, with a second attempt if the connection is lost.

        Args:
            query: reads rows; it may be called twice.

        Raises:
            DatabaseUnavailable: the database cannot be reached, or has none of our tables.
        """
        from sqlalchemy.exc import DBAPIError

        from .transaction import Transaction

        if not self.present():
            raise SchemaError("the database or its tables do not exist yet")
        with translate_errors():
            engine = self._connected()
            for attempt in (1, 2):
                try:
                    with open_connection(engine) as connection:
                        return query(Transaction(connection))
                except DBAPIError as error:
                    if attempt == 2 or not error.connection_invalidated:
                        raise
        raise AssertionError

    @contextmanager
    def write(self, patience: float = BUSY_SECONDS) -> Iterator[Transaction]:
        """Open a transaction for changes, under a lock that all processes share.

        Under the lock, changes become visible in the order of their ids in the feed. Without it, a
        reader could miss a lower id that is committed later.

        Args:
            patience: seconds to wait for other writers.

        Raises:
            DatabaseUnavailable: the database cannot be reached or created; nothing was changed.
        """
        from .transaction import Transaction

        with translate_errors():
            self._create_if_missing()
            engine = self._connected()
            with self._turn(patience) as left, begin_exclusive(engine, left) as connection:
                transaction = Transaction(connection)
                yield transaction
        for call in transaction.committed:
            try:
                call()
            except Exception:  # the change is committed, and the other calls still have to run
                logger.exception("a change was committed, but a callback after it failed")

    @contextmanager
    def _turn(self, patience: float) -> Iterator[float]:
        """Let the threads of this process write to SQLite in the order in which they came.

        SQLite has no such order: a thread may find the file locked at every attempt, until its
        patience ends, while others write again and again.

        Yields:
            The patience that is left for writers of other processes.
        """
        if self._connected().dialect.name != "sqlite":
            yield patience
            return
        until = time.monotonic() + patience
        held = False
        try:
            held = self._writers.acquire(patience)
            if not held:
                raise DatabaseUnavailable("other threads are writing for too long")
            yield max(0.0, until - time.monotonic())
        finally:
            if held:
                self._writers.release()

    # The schema

    def upgrade(self) -> tuple[str | None, str]:
        """Create the schema or upgrade it to the newest version.

        Returns:
            The versions before and after; `None` in place of the former if there were no tables.

        Raises:
            DatabaseUnavailable: the database cannot be reached or created.
            SchemaError: a newer version of the package made the schema; nothing was changed.
        """
        from . import schema

        with self._lock, translate_errors():
            self._create_file()
            with begin_exclusive(self._connected()) as connection:
                before = schema.version(connection)
                if schema.is_newer(before):
                    raise _too_new(before)
                if before != schema.NEWEST:
                    schema.upgrade(connection)
            self._ready = True
            return before, schema.NEWEST

    def status(self) -> tuple[str, str | None, str]:
        """Return the database's URL, the version of its schema, and the newest version.

        The URL contains no password. The version is `None` if there are no tables.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        from . import schema

        with self._lock, translate_errors():
            if self._given is None and not self._exists():
                return self.where(), None, schema.NEWEST
            with open_connection(self._connected()) as connection:
                return self.where(), schema.version(connection), schema.NEWEST

    def where(self) -> str:
        """Return the database's URL without its password and its query."""
        url = self._connected().url
        return url.set(query={}).render_as_string(hide_password=True)

    def server_time(self) -> float | None:
        """Return the server's time in seconds since the epoch, or `None` for SQLite.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        if self.creates_own_schema:
            return None
        with translate_errors(), open_connection(self._connected()) as connection:
            query = "SELECT extract(epoch FROM clock_timestamp())"
            return float(connection.exec_driver_sql(query).scalar_one())

    def close(self) -> None:
        """Close all connections; the next use opens the database again."""
        with self._lock:
            engine, self._engine, self._opened, self._ready = self._engine, None, None, False
            if engine is not None and self._given is None:
                engine.dispose()

    def after_fork(self) -> None:
        """Discard the parent process's connections without closing them, the app's engine's too."""
        self._lock = threading.RLock()
        engine, self._engine, self._ready = self._engine, None, False
        if engine is not None:
            engine.dispose(close=False)

    # Opening

    def _create_if_missing(self) -> None:
        """Create a missing SQLite file and its tables.

        Raises:
            SchemaError: the tables are missing on a server.
        """
        if not self.present():
            if not self.upgrades_itself:
                raise SchemaError(_MISSING)
            self.upgrade()

    def _has_schema(self, engine: Engine) -> bool:
        from . import schema

        with open_connection(engine) as connection:
            found = schema.version(connection)
        if found == schema.NEWEST:
            return True
        if schema.is_newer(found):
            raise _too_new(found)
        if found is None:
            return False
        if not self.upgrades_itself:
            raise SchemaError(f"its schema has the old version {found}: run flask m9m db upgrade")
        self.upgrade()
        return True

    def _connected(self) -> Engine:
        with self._lock:
            if self._engine is None:
                if self._given is not None:
                    given = self._given() if callable(self._given) else self._given
                    self._engine = check_engine(given)
                else:
                    path = sqlite_path(self._url)
                    self._engine = create_engine_of(self._url, self._settings)
                    self._opened = None if path is None else _inode(path)
                    if self._opened is not None:
                        self._file = path
            return self._engine

    def _exists(self) -> bool:
        """Tell whether the database may exist; for a server, only a connection can tell."""
        path = sqlite_path(self._url)
        if path is None:
            return not self.local or self._engine is not None
        return path.exists()

    def require_file(self) -> None:
        """Refuse to go on without a database's file, for something proves that there was one.

        Raises:
            DatabaseUnavailable: the database is a SQLite file of our own, and it does not exist.
        """
        path = sqlite_path(self._url) if self._given is None else None
        if path is not None and not path.exists():
            raise DatabaseUnavailable(
                f"the file {path} is missing, but a token is of a session or version that was "
                "stored in it: mount its volume, or restore it"
            )

    def _check_folder(self) -> None:
        """Refuse to take a missing folder for a database that has not been created yet.

        Raises:
            DatabaseUnavailable: the settings name a file in a folder that does not exist.
        """
        path = sqlite_path(self._url)
        if path is not None and not self._is_default and not path.parent.is_dir():
            raise DatabaseUnavailable(
                f"the folder {path.parent} does not exist: mount its volume, or create it "
                "(flask m9m db upgrade does)"
            )

    def _was_replaced(self) -> bool:
        """Tell whether the open SQLite file was deleted or replaced by another file."""
        return self._file is not None and self._opened not in (None, _inode(self._file))

    def _create_file(self) -> None:
        """Create the SQLite file, readable by its owner alone, and enable its write-ahead log."""
        path = sqlite_path(self._url) if self._given is None else None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise DatabaseUnavailable(
                f"{path} cannot be written ({error.strerror}): "
                "make it writable, or set database.url"
            ) from None
        self._file, self._opened = path, _inode(path)
        enable_write_ahead_log(self._connected())


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _too_new(found: str | None) -> SchemaError:
    return SchemaError(
        f"its schema has version {found} of a newer flask-m9m: upgrade the package flask-m9m"
    )
