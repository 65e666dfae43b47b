"""Database: the engine, opened when it is first needed in the process that needs it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .. import forking
from ..errors import DatabaseUnavailable, SchemaError
from ..settings import DatabaseSettings
from .engine import (
    BUSY_SECONDS,
    checked,
    connected,
    create,
    exclusive,
    sqlite_path,
    translated,
    url_of,
    write_ahead,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .transaction import Transaction

logger = logging.getLogger("flask_m9m")

T = TypeVar("T")


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
        self._url = url_of(settings, instance_path)
        self._given = engine
        self._engine: Engine | None = None
        self._file: Path | None = None
        self._opened: tuple[int, int] | None = None
        self._ready = False
        self._lock = threading.RLock()
        forking.watch(self)

    @property
    def local(self) -> bool:
        """Whether it is a SQLite file of our own, which keeps no request waiting for an answer."""
        return self._given is None and self._url.startswith("sqlite")

    @property
    def makes_itself(self) -> bool:
        """Whether its tables are made and brought up to date when they are first written to."""
        # Asked of the URL where there is one: to connect would be to make the file.
        return self.local or self._connected().dialect.name == "sqlite"

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
                    with connected(engine) as connection:
                        return query(Transaction(connection))
                except DBAPIError as error:
                    if attempt == 2 or not error.connection_invalidated:
                        raise
        raise AssertionError

    @contextmanager
    def write(self, patience: float = BUSY_SECONDS) -> Iterator[Transaction]:
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
            with exclusive(self._connected(), patience) as connection:
                transaction = Transaction(connection)
                yield transaction
        for call in transaction.committed:
            try:
                call()
            except Exception:  # what is told of it undoes no change
                logger.exception("a change was made, and could not be told")

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
            with exclusive(self._connected()) as connection:
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
            with connected(self._connected()) as connection:
                return self.where(), schema.version(connection), schema.NEWEST

    def where(self) -> str:
        """Return its URL without a password."""
        url = self._connected().url
        return url.set(query={}).render_as_string(hide_password=True)

    def server_time(self) -> float | None:
        """Return the server's time in seconds since the epoch; SQLite's is this machine's: `None`.

        Raises:
            DatabaseUnavailable: it cannot be reached.
        """
        if self.makes_itself:
            return None
        with translated(), connected(self._connected()) as connection:
            query = "SELECT extract(epoch FROM clock_timestamp())"
            return float(connection.exec_driver_sql(query).scalar_one())

    def close(self) -> None:
        """Close every connection; the next use opens it anew."""
        with self._lock:
            engine, self._engine, self._opened, self._ready = self._engine, None, None, False
            if engine is not None and self._given is None:
                engine.dispose()

    def after_fork(self) -> None:
        """Leave the parent's connections to the parent, those of the app's engine too."""
        self._lock = threading.RLock()
        engine, self._engine, self._ready = self._engine, None, False
        if engine is not None:
            engine.dispose(close=False)

    # Opening

    def _make(self) -> None:
        """Make SQLite's file and tables where they are missing."""
        if not self.present():
            if not self.makes_itself:
                raise SchemaError("its tables are not there: run flask m9m db upgrade")
            self.upgrade()

    def _has_schema(self, engine: Engine) -> bool:
        from . import schema

        with connected(engine) as connection:
            found = schema.version(connection)
        if found == schema.NEWEST:
            return True
        if schema.is_newer(found):
            raise _too_new(found)
        if found is None:
            return False
        if not self.makes_itself:
            raise SchemaError(f"its schema is {found}: run flask m9m db upgrade")
        self.upgrade()
        return True

    def _connected(self) -> Engine:
        with self._lock:
            if self._engine is None:
                if self._given is not None:
                    given = self._given() if callable(self._given) else self._given
                    self._engine = checked(given)
                else:
                    self._file = sqlite_path(self._url)
                    self._engine = create(self._url)
                    self._opened = None if self._file is None else _inode(self._file)
            return self._engine

    def _exists(self) -> bool:
        """Tell whether there is something to open; a server is asked by opening it."""
        path = sqlite_path(self._url)
        if path is None:
            return not self.local or self._engine is not None
        return path.exists()

    def _moved(self) -> bool:
        """Tell whether the file that is open is no longer the one that stands there."""
        return self._file is not None and self._opened not in (None, _inode(self._file))

    def _create_file(self) -> None:
        """Make the file, readable by its owner alone, and have SQLite keep a log ahead of it."""
        path = sqlite_path(self._url) if self._given is None else None
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
        write_ahead(self._connected())


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _too_new(found: str | None) -> SchemaError:
    return SchemaError(f"its schema is {found}, made by a newer flask-m9m: upgrade the package")
