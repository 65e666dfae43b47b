"""`flask m9m token revoke`, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import jwt
import pytest

from tests.cli.conftest import SECRET, Folder

BEGIN = """\
from app import app, m9m
with app.app_context():
    print(m9m.tokens.issue_pair("ann").access_token)
"""


def issue(project: Folder, subject: str = "ann") -> str:
    return project.m9m("token", "issue", subject).stdout.strip()


def begin_session(project: Folder) -> str:
    return subprocess.run(
        [sys.executable, "-c", BEGIN],
        cwd=project.path,
        env=project.environ(M9M_PERFORMANCE_RATE_LIMIT_PATH=str(project.path / "limits")),
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.strip()


def claim(token: str, name: str) -> Any:
    return jwt.decode(token, options={"verify_signature": False})[name]


def holds(project: Folder, token: str) -> bool:
    return project.m9m("token", "inspect", "-", stdin=token).returncode == 0


def done(project: Folder, *arguments: str, stdin: str = "") -> str:
    result = project.m9m("token", "revoke", *arguments, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refused(project: Folder, *arguments: str, stdin: str = "") -> str:
    result = project.m9m("token", "revoke", *arguments, stdin=stdin)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("source", ["nothing", "-", "a file"])
def test_one_token_is_revoked_and_no_other(project: Folder, source: str) -> None:
    token, other = issue(project), issue(project)
    said = f"revoked the token {claim(token, 'jti')} of ann\n"
    if source == "a file":
        project.write("token.txt", token + "\n")
        assert done(project, "token.txt") == said
    else:
        assert done(project, *["-"] * (source == "-"), stdin=token + "\n") == said
    assert not holds(project, token)
    assert holds(project, other)


def test_a_token_is_revoked_by_its_id(project: Folder) -> None:
    token, other = issue(project), issue(project)
    jti = claim(token, "jti")
    assert done(project, "--jti", jti) == f"revoked the token {jti}\n"
    assert not holds(project, token)
    assert holds(project, other)


def test_a_session_is_revoked_once(project: Folder) -> None:
    token, other = begin_session(project), begin_session(project)
    sid = claim(token, "sid")
    assert done(project, "--session", sid) == f"revoked the session {sid}\n"
    assert not holds(project, token)
    assert holds(project, other)
    again = refused(project, "--session", sid)
    assert again == f"Error: no session has the id '{sid}', or it has ended already\n"


def test_all_that_a_subject_has_is_revoked(project: Folder) -> None:
    tokens = [issue(project), begin_session(project)]
    other = issue(project, "bob")
    assert done(project, "--subject", "ann") == "revoked every token and session of ann\n"
    assert not any(holds(project, token) for token in tokens)
    assert holds(project, other)
    assert holds(project, issue(project))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1_000_000_000}, "the text is not a valid access token: the token has expired"),
        ({"sub": 7}, "the text is not a valid access token: the claim sub is not a string"),
        ({"token_use": "id"}, "the claim token_use marks a token that is not an access token"),
        ({"jti": ""}, "the token has no jti"),
    ],
)
def test_a_token_that_cannot_be_revoked_is_told_why(
    project: Folder, claims: dict[str, Any], reason: str
) -> None:
    text = jwt.encode({"sub": "ann", "jti": "1", "exp": time.time() + 600, **claims}, SECRET)
    assert reason in refused(project, "-", stdin=text)
    assert not (project.path / "instance").exists()


@pytest.mark.parametrize("text", ["", "noise", "an-id-that-is-no-token", "a.b.c"])
def test_what_is_no_token_revokes_nothing(project: Folder, text: str) -> None:
    assert "the text is not a valid access token" in refused(project, "-", stdin=text)
    assert not (project.path / "instance").exists()


def test_a_revoked_token_is_not_revoked_again(project: Folder) -> None:
    token = issue(project)
    done(project, stdin=token)
    assert refused(project, stdin=token).endswith(": the token was revoked\n")


def test_an_unknown_session_makes_no_database(project: Folder) -> None:
    refused(project, "--session", "none")
    assert not (project.path / "instance").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["-", "--jti", "a"],
        ["--jti", "a", "--session", "b"],
        ["--session", "b", "--subject", "ann"],
        ["token.txt", "--subject", "ann"],
        ["--jti", "a", "--jti", ""],
        ["--subject", ""],
        ["--token", "a"],
        ["a", "b"],
    ],
)
def test_what_to_revoke_is_named_in_exactly_one_way(project: Folder, arguments: list[str]) -> None:
    result = project.m9m("token", "revoke", *arguments)
    assert result.returncode == 2
    assert not (project.path / "instance").exists()


@pytest.mark.parametrize("option", [[], ["--jti"]])
def test_a_token_to_revoke_is_never_an_argument(project: Folder, option: list[str]) -> None:
    token = issue(project)
    result = project.m9m("token", "revoke", *option, token)
    assert result.returncode == 2
    assert "pipe it to flask m9m token revoke -" in result.stderr
    assert token not in result.stdout + result.stderr
    assert holds(project, token)


def test_what_a_terminal_obeys_is_not_printed_of_what_was_revoked(project: Folder) -> None:
    claims = {"sub": "an\x1b[31mn", "jti": "1\x9b", "exp": time.time() + 600}
    said = done(project, "-", stdin=jwt.encode(claims, SECRET))
    assert said == "revoked the token 1\\x9b of an\\x1b[31mn\n"
    assert done(project, "--subject", "\x1b[31m").endswith("of \\x1b[31m\n")
