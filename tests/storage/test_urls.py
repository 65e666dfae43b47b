"""The password in a database's URL is told to nobody, also where the URL is wrong."""

from __future__ import annotations

import traceback
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
