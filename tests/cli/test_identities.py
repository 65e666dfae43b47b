"""`flask m9m apikey` and `db`, run as a user runs them."""

from __future__ import annotations

import json
import re

import pytest

from flask_m9m.storage.schema import NEWEST
from tests.cli.conftest import Folder


def only(project: Folder, *arguments: str) -> str:
    result = project.m9m(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_key_is_made_listed_rotated_and_revoked(project: Folder) -> None:
    made = project.m9m("apikey", "create", "ci", "--owner", "ann", "--scope", "a:b", "-h")
    assert made.returncode == 2  # no such option
    made = project.m9m("apikey", "create", "ci", "--owner", "ann", "--scope", "a b", "--expires=1h")
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(r"m9m_sk_[0-9A-Za-z]{38}\n", made.stdout)
    (listed,) = json.loads(only(project, "apikey", "list", "-o", "json"))
    assert (listed["owner"], listed["scopes"]) == ("ann", ["a", "b"])
    assert made.stdout.strip() not in only(project, "apikey", "list")

    assert re.match(r"m9m_sk_", only(project, "apikey", "rotate", listed["id"], "--grace", "5m"))
    only(project, "apikey", "revoke", listed["id"])
    again = project.m9m("apikey", "revoke", listed["id"])
    assert (again.returncode, again.stderr) == (1, "Error: no valid API key with this id exists\n")
    assert only(project, "apikey", "list", "--unused", "1h", "-o", "json") == "[]"
    assert only(project, "apikey", "prune", "--unused", "90d", "-o", "json") == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "ci", "--owner", "ann", "--expires", "soon"],
        ["create", "ci", "--owner", "ann", "--rate-limit", "often"],
        ["create", "", "--owner", "ann"],
        ["prune", "--unused", "1s"],
        ["revoke", "nothing"],
        ["rotate", "nothing"],
    ],
)
def test_what_cannot_be_done_with_keys_is_exit_1(project: Folder, arguments: list[str]) -> None:
    result = project.m9m("apikey", *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: ")
    assert not (project.path / "instance").exists()


def test_the_database_is_shown_and_upgraded(project: Folder) -> None:
    shown = json.loads(only(project, "db", "status", "-o", "json"))
    assert shown[0]["schema"] is None
    assert not (project.path / "instance").exists()
    assert only(project, "db", "upgrade") == f"upgraded from nothing to {NEWEST}"
    assert only(project, "db", "upgrade") == f"up to date: {NEWEST}"
    assert json.loads(only(project, "db", "status", "-o", "json"))[0]["schema"] == NEWEST


def test_a_database_that_is_not_there_is_said_without_its_password(project: Folder) -> None:
    result = project.m9m(
        "apikey", "list", M9M_DATABASE_URL="postgresql://m9m:hunter2secret@127.0.0.1:1/none"
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: database: ")
    assert "hunter2secret" not in result.stderr


def test_an_instance_folder_that_cannot_be_written_names_the_setting(project: Folder) -> None:
    (project.path / "instance").write_text("in the way")
    result = project.m9m("apikey", "create", "ci", "--owner", "ann")
    assert result.returncode == 1
    assert "database.url" in result.stderr
