from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flask_m9m.settings import settings_of
from flask_m9m.storage import Database
from tests.databases import settle

OpenDatabase = Callable[[str], Database]


@pytest.fixture
def open_database(tmp_path: object) -> Iterator[OpenDatabase]:
    """Return a function that opens a database as a process of its own would."""
    opened: list[Database] = []

    def open_one(url: str) -> Database:
        settings = settings_of({"database": {"url": url}}).database
        database = Database(settings, str(tmp_path))
        opened.append(database)
        return database

    yield open_one
    settle()
    for database in opened:
        database.close()


@pytest.fixture
def database(database_url: str, open_database: OpenDatabase) -> Database:
    """A database with our tables, of each kind in turn."""
    database = open_database(database_url)
    database.upgrade()
    return database
