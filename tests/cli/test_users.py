"""`flask m9m user`, run as a user runs it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import Folder

PASSWORD = "correct horse battery"
BASIC = {"M9M_SECURITY_BASIC_AUTH_ENABLED": "true"}
SIGN_IN = """\
import sys
from app import app
response = app.test_client().get("/undecided", auth=("ann", sys.argv[1]))
print(response.status_code)
"""


def done(project: Folder, *arguments: str, stdin: str = "") -> str:
    result = project.m9m("user", *arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.strip()


def refused(project: Folder, *arguments: str, stdin: str = "") -> str:
    result = project.m9m("user", *arguments, stdin=stdin)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def listed(project: Folder) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(done(project, "list", "-o", "json"))
    return rows


def sign_in(project: Folder, password: str) -> int:
    result = subprocess.run(
        [sys.executable, "-c", SIGN_IN, password],
        cwd=project.path,
        env=project.environ(M9M_PERFORMANCE_RATE_LIMIT_PATH=str(project.path / "limits"), **BASIC),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return int(result.stdout)


def test_a_user_is_made_listed_and_signs_in(project: Folder) -> None:
    rights = ["--scope", "a b", "--scope", "c", "--role", "admin", "--role", "ops"]
    assert done(project, "create", "ann", *rights, stdin=PASSWORD + "\n") == "created ann"
    (row,) = listed(project)
    assert row.pop("created_at")
    assert row == {
        "username": "ann",
        "scopes": ["a", "b", "c"],
        "roles": ["admin", "ops"],
        "disabled": False,
    }
    assert sign_in(project, PASSWORD) == 200
    assert sign_in(project, PASSWORD + "\n") == 401


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_a_list_shows_no_hash(project: Folder, output: str) -> None:
    done(project, "create", "ann", stdin=PASSWORD)
    printed = done(project, "list", "-o", output)
    assert "ann" in printed
    assert "scrypt" not in printed
    assert "hash" not in printed.lower()


def test_a_new_password_takes_the_place_of_the_old_one(project: Folder) -> None:
    done(project, "create", "ann", stdin=PASSWORD)
    said = done(project, "passwd", "ann", stdin="another horse\r\n")
    assert said == "changed the password of ann; all earlier tokens and sessions are revoked"
    assert sign_in(project, PASSWORD) == 401
    assert sign_in(project, "another horse") == 200


def test_a_disabled_user_is_kept_out_until_enabled(project: Folder) -> None:
    done(project, "create", "ann", stdin=PASSWORD)
    token = project.m9m("token", "issue", "ann").stdout
    said = done(project, "disable", "ann")
    assert said == "disabled ann; all earlier tokens and sessions are revoked"
    assert listed(project)[0]["disabled"] is True
    assert sign_in(project, PASSWORD) == 401
    assert done(project, "enable", "ann") == "enabled ann"
    assert listed(project)[0]["disabled"] is False
    assert sign_in(project, PASSWORD) == 200
    assert project.m9m("token", "inspect", "-", stdin=token).returncode == 1


def test_a_name_that_is_taken_is_refused(project: Folder) -> None:
    done(project, "create", "ann", stdin=PASSWORD)
    assert refused(project, "create", "ann", stdin="another horse") == (
        "Error: a user 'ann' exists already: choose another name\n"
    )
    assert sign_in(project, PASSWORD) == 200


@pytest.mark.parametrize("command", ["passwd", "disable", "enable"])
def test_an_unknown_name_is_refused_and_makes_no_database(project: Folder, command: str) -> None:
    error = refused(project, command, "bob", stdin=PASSWORD)
    assert error == "Error: no user 'bob' exists\n"
    assert not (project.path / "instance").exists()


@pytest.mark.parametrize("password", ["", "\n", "short", "x" * 4_097, "x" * 9_000, "a\tb" * 4])
def test_what_cannot_be_a_password_is_refused_and_not_repeated(
    project: Folder, password: str
) -> None:
    error = refused(project, "create", "ann", stdin=password)
    assert "a password must" in error
    assert not password.strip() or password not in error
    assert not (project.path / "instance").exists()


def test_bytes_that_are_no_text_are_refused_and_not_repeated(project: Folder) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "flask", "m9m", "user", "create", "ann"],
        cwd=project.path,
        input=b"correct \xff horse",
        env=project.environ(PYTHONIOENCODING="utf-8:strict"),
        capture_output=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert result.stderr.strip() == b"Error: the password on standard input is not valid UTF-8"


@pytest.mark.parametrize("arguments", [["a:b"], ["ann", "--scope", 'a"b'], ["ann", "--role", "é"]])
def test_a_name_or_right_that_cannot_be_is_refused(project: Folder, arguments: list[str]) -> None:
    refused(project, "create", *arguments, stdin=PASSWORD)
    assert not (project.path / "instance").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["create"],
        ["create", "ann", PASSWORD],
        ["create", "ann", "--password", PASSWORD],
        ["passwd", "ann", PASSWORD],
        ["disable"],
        ["list", "-o", "xml"],
    ],
)
def test_wrong_usage_of_user_exits_2(project: Folder, arguments: list[str]) -> None:
    result = project.m9m("user", *arguments, stdin=PASSWORD)
    assert result.returncode == 2
    assert not (project.path / "instance").exists()


def at_a_terminal(project: Folder, arguments: list[str], answers: dict[str, str]) -> str:
    """Run a command at a terminal, answer what it asks, and return all that is to be read."""
    master, slave = os.openpty()
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "m9m", *arguments],
        cwd=project.path,
        env=project.environ(),
        stdin=slave,
        stdout=write,
        stderr=write,
        start_new_session=True,
    )
    os.close(write)
    try:
        printed = b""
        for question, answer in answers.items():
            printed += read_until(read, question.encode())
            os.write(master, answer.encode() + b"\n")
        printed += read_until(read, None)
        assert process.wait(30) == 0, printed
        if select.select([master], [], [], 0)[0]:
            printed += os.read(master, 4_096)  # what the terminal echoed
    finally:
        process.kill()
        process.wait()
        for descriptor in (master, slave, read):
            os.close(descriptor)
    return printed.decode()


def read_until(descriptor: int, end: bytes | None) -> bytes:
    """Read until something was printed, or everything where `end` is `None`."""
    printed, deadline = b"", time.monotonic() + 30
    while end is None or end not in printed:
        assert select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0], printed
        more = os.read(descriptor, 4_096)
        if not more:
            break
        printed += more
    return printed


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_a_terminal_is_asked_twice_and_shows_no_password(project: Folder) -> None:
    asked = {"Password: ": PASSWORD, "Repeat for confirmation: ": PASSWORD}
    printed = at_a_terminal(project, ["user", "create", "ann"], asked)
    assert "created ann" in printed
    assert PASSWORD not in printed
    assert sign_in(project, PASSWORD) == 200


ISSUE = """\
from app import app, m9m
with app.app_context():
    pair = m9m.tokens.issue_pair("ann")
    m9m.api_keys.create("ci", "ann")
    print(pair.sid, pair.access_token)
"""
STATUS = """\
import sys
from app import app
response = app.test_client().get("/undecided", headers={"Authorization": "Bearer " + sys.argv[1]})
print(response.status_code)
"""


def begin_session(project: Folder) -> tuple[str, str]:
    sid, token = project.python(ISSUE).split()
    return sid, token


def status(project: Folder, token: str) -> int:
    return int(project.python(STATUS.replace("sys.argv[1]", repr(token))))


def test_a_user_is_shown_and_gets_other_rights(project: Folder) -> None:
    done(project, "create", "ann", "--scope", "a", "--role", "ops", stdin=PASSWORD)
    begin_session(project)
    shown = json.loads(done(project, "show", "ann", "-o", "json"))
    assert shown["username"] == "ann"
    assert (shown["sessions"], shown["api_keys"]) == (1, 1)
    assert done(project, "update", "ann", "--scope", "b", "--scope", "c d") == "changed ann"
    assert done(project, "update", "ann", "--no-roles") == "changed ann"
    [row] = listed(project)
    assert (row["scopes"], row["roles"]) == (["b", "c", "d"], [])
    assert "no user bob exists" in refused(project, "show", "bob")
    assert "no user 'bob' exists" in refused(project, "update", "bob", "--no-roles")
    for wrong in ([], ["--scope", "a", "--no-scopes"], ["--role", "a", "--no-roles"]):
        assert project.m9m("user", "update", "ann", *wrong).returncode == 2


def test_sessions_are_listed_and_ended_one_or_all(project: Folder) -> None:
    done(project, "create", "ann", stdin=PASSWORD)
    (first, one), (second, two), (_, three) = (begin_session(project) for _ in range(3))
    rows = json.loads(done(project, "sessions", "ann", "-o", "json"))
    assert {row["session"] for row in rows} >= {first, second}
    assert len(rows) == 3
    done(project, "revoke-sessions", "ann", "--session", first)
    assert [status(project, token) for token in (one, two, three)] == [401, 200, 200]
    assert "ann has no such session" in refused(
        project, "revoke-sessions", "ann", "--session", first
    )
    assert "bob has no such session" in refused(
        project, "revoke-sessions", "bob", "--session", second
    )
    done(project, "revoke-sessions", "ann")
    assert [status(project, token) for token in (two, three)] == [401, 401]
    assert json.loads(done(project, "sessions", "ann", "-o", "json")) == []


def test_a_deleted_user_leaves_nothing_that_works(project: Folder) -> None:
    done(project, "create", "ann", stdin=PASSWORD)
    _, token = begin_session(project)
    assert project.m9m("user", "delete", "ann", stdin="n\n").returncode == 1
    assert [row["username"] for row in listed(project)] == ["ann"]
    assert done(project, "delete", "ann", "--yes").startswith("deleted ann")
    assert listed(project) == []
    assert status(project, token) == 401
    keys = json.loads(project.m9m("apikey", "list", "--owner", "ann", "-o", "json").stdout)
    assert all(key["status"] == "revoked" for key in keys if "status" in key)
    assert "no user 'ann' exists" in refused(project, "delete", "ann", "--yes")
    done(project, "create", "ann", stdin=PASSWORD)
    assert status(project, token) == 401
