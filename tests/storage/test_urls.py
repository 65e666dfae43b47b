"""The password in a database's URL is told to nobody, also where the URL is wrong."""

from __future__ import annotations

import traceback
from contextlib import ExitStack
from pathlib import Path

import pytest

from flask_m9m.errors import DatabaseUnavailable
from flask_m9m.settings import settings_of
from flask_m9m.storage import Database

SERVER = "127.0.0.1:1"  # nothing listens there


def database(url: str, tmp_path: Path) -> Database:
    return Database(settings_of({"database": {"url": url}}).database, str(tmp_path))


def shown(one: Database) -> str:
    """Return where a database is, or why that cannot be told."""
    try:
        return one.where()
    except DatabaseUnavailable as error:
        return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "password",
    [
        "kept-to-us",
        "kept-to%40us",
        "kept/to/us",
        "kept:to:us",
        "x@kept",
        "x@y:kept",
    ],
)
def test_a_password_that_is_quoted_or_not_is_told_to_nobody(password: str, tmp_path: Path) -> None:
    one = database(f"postgresql://ann:{password}@{SERVER}/app", tmp_path)
    with pytest.raises(DatabaseUnavailable) as raised:
        one.present()
    assert "kept" not in "".join(traceback.format_exception(raised.value))
    assert "kept" not in shown(one)


@pytest.mark.parametrize("name", ["password", "sslpassword"])
def test_a_password_among_the_options_is_not_shown(name: str, tmp_path: Path) -> None:
    one = database(f"postgresql://ann@{SERVER}/app?{name}=kept", tmp_path)
    assert "kept" not in one.where()


def test_a_path_with_blanks_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()
    one = database(f"sqlite:///{folder}/a b.db", tmp_path)
    one.upgrade()
    assert one.present()
    one.close()
    assert (folder / "a b.db").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+asyncpg://ann@h/app", "the driver asyncpg is asynchronous, and cannot be"),
        ("postgresql+psycopg2://ann@h/app", "needs the package psycopg2: install it, or write"),
        ("postgresql+pg8000://ann@h/app", "needs the package pg8000: install it, or write"),
        ("mysql://ann@h/app", "the database must be SQLite or PostgreSQL"),
    ],
)
def test_another_driver_gets_the_right_sentence(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable) as raised:
        database(url, tmp_path).present()
    assert said in str(raised.value)


def test_the_pool_has_the_size_of_the_settings(postgres_url: str, tmp_path: Path) -> None:
    settings = {"url": postgres_url, "pool_size": 1, "pool_timeout": "0.2s"}
    one = Database(settings_of({"database": settings}).database, str(tmp_path))
    engine = one._connected()
    try:
        with ExitStack() as held:
            for _ in range(3):
                held.enter_context(engine.connect())
            with pytest.raises(DatabaseUnavailable):
                one.server_time()
        assert one.server_time() is not None
    finally:
        one.close()
