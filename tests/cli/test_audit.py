"""`flask m9m audit` and `flask m9m credential audit`, in processes of their own."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from .conftest import APP, SECRET, Folder
from .credentials import new_key

RECORD = """\
from datetime import datetime
from app import app, m9m
with app.app_context():
    for number in range(1, 6):
        m9m.audit.record("counted", subject=f"user-{number}", number=number)
"""
COLUMNS = {
    "at",
    "event",
    "outcome",
    "request_id",
    "subject",
    "scheme",
    "address",
    "method",
    "route",
    "target",
    "details",
}


def settings(database: str, sink: str = "database") -> str:
    return f"security: {{}}\naudit: {{sinks: [{sink}]}}\ndatabase: {{url: 'sqlite:///{database}'}}"


@pytest.fixture
def audited(folder: Folder) -> Folder:
    """A folder with an app that keeps a trail of five rows."""
    folder.write("app.py", APP)
    folder.write(".env", f"M9M_JWT_SECRET={SECRET}\nM9M_ENCRYPTION_KEY={new_key()}\n")
    folder.write("config.yaml", settings("m9m.db"))
    folder.python(RECORD)
    return folder


def tamper(folder: Folder, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(folder.path / "m9m.db")) as database, database:
        database.execute(statement, values)


def listed(folder: Folder, *arguments: str) -> list[dict[str, Any]]:
    result = folder.m9m("audit", "list", "-o", "json", *arguments)
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def seqs(folder: Folder, *arguments: str) -> list[int]:
    return [row["seq"] for row in listed(folder, *arguments)]


def test_events_are_listed_the_newest_first(audited: Folder) -> None:
    rows = listed(audited)
    assert [row["seq"] for row in rows] == [5, 4, 3, 2, 1]
    assert set(rows[0]) == {"seq", *COLUMNS}
    assert rows[0]["details"] == {"number": 5}
    assert rows[0]["subject"] == "user-5"
    assert datetime.fromisoformat(rows[0]["at"]).tzinfo is not None
    assert seqs(audited, "--limit", "2") == [5, 4]


def test_a_table_and_yaml_say_the_same(audited: Folder) -> None:
    table = audited.m9m("audit", "list").stdout.splitlines()
    assert table[0].split()[:3] == ["SEQ", "AT", "EVENT"]
    assert len(table) == 6
    assert '{"number":5}' in table[1]
    told = yaml.safe_load(audited.m9m("audit", "list", "-o", "yaml").stdout)
    assert [row["seq"] for row in told] == [5, 4, 3, 2, 1]


def test_events_are_found_by_what_they_have(audited: Folder) -> None:
    made = audited.m9m("user", "create", "ann", stdin="correct horse\n")
    assert made.returncode == 0, made.stderr
    assert seqs(audited, "--subject", "user-3") == [3]
    assert [row["event"] for row in listed(audited, "--event", "user_changed")] == ["user_changed"]
    assert seqs(audited, "--address", "192.0.2.1") == []
    tamper(audited, "UPDATE m9m_audit SET address = '192.0.2.1', target = 'x' WHERE seq = 2")
    assert seqs(audited, "--address", "192.0.2.1") == [2]
    assert seqs(audited, "--target", "x") == [2]
    assert seqs(audited, "--subject", "user-3", "--event", "user_changed") == []
    assert audited.m9m("audit", "list", "--subject", "nobody").stdout == ""


def at(folder: Folder, seq: int, moment: datetime) -> None:
    microseconds = round(moment.timestamp() * 1_000_000)
    tamper(folder, "UPDATE m9m_audit SET at = ? WHERE seq = ?", microseconds, seq)


def test_events_are_found_by_when_they_happened(audited: Folder) -> None:
    now = datetime.now(UTC)
    for seq, age in ((1, 72), (2, 30), (3, 23)):
        at(audited, seq, now - timedelta(hours=age))
    assert seqs(audited, "--since", "24h") == [5, 4, 3]
    assert seqs(audited, "--since", "1d12h", "--until", "1h") == [3, 2]
    at(audited, 1, datetime(2026, 1, 31, 12, tzinfo=UTC))
    at(audited, 2, datetime(2026, 1, 31, 11, 59, 59, tzinfo=UTC))
    day = ("--until", "2026-02-01")
    assert seqs(audited, "--since", "2026-01-31T13:00:00+01:00", *day) == [1]
    assert seqs(audited, "--since", "2026-01-31T12:00:00", *day) == [1]
    assert seqs(audited, "--since", "2026-01-31T12:00:00-01:00", *day) == []
    assert seqs(audited, "--since", "2026-01-31", "--until", "2026-01-31T12:00Z") == [2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--since", "yesterday"],
        ["list", "--since", ""],
        ["list", "--since", "3600"],
        ["list", "--until", "200000d"],
        ["list", "--since", "2026-13-01"],
        ["list", "--limit", "0"],
        ["list", "--limit", "10001"],
        ["verify", "--anchor", "5"],
        ["verify", "--anchor", f"5:{'g' * 64}"],
        ["verify", "--anchor", ""],
        ["verify", "-o", "yaml"],
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(audited: Folder, arguments: list[str]) -> None:
    result = audited.m9m("audit", *arguments)
    assert (result.returncode, result.stdout) == (2, "")


def test_a_trail_that_is_not_kept_is_told_and_how_to_keep_one(project: Folder) -> None:
    for command in (["audit", "list"], ["audit", "verify"], ["credential", "audit", "x"]):
        result = project.m9m(*command)
        assert (result.returncode, result.stdout) == (1, "")
        assert "audit: {sinks: [log, database]}" in result.stderr


def test_a_trail_that_is_not_kept_any_more_is_still_shown_and_verified(audited: Folder) -> None:
    audited.write("config.yaml", settings("m9m.db", "log"))
    result = audited.m9m("audit", "list", "-o", "json")
    assert len(json.loads(result.stdout)) == 5
    assert "audit: {sinks: [log, database]}" in result.stderr
    assert audited.m9m("audit", "verify").returncode == 0


def test_a_name_of_an_event_that_is_nearly_one_of_ours_is_pointed_out(audited: Folder) -> None:
    result = audited.m9m("audit", "list", "--event", "acess_denied")
    assert (result.returncode, result.stdout) == (0, "")
    said = "no event has the name 'acess_denied'; did you mean access_denied?\n"
    assert result.stderr == f"no events found\n{said}"
    for other in ("rate_limited", "order.paid"):
        assert audited.m9m("audit", "list", "--event", other).stderr == "no events found\n"


def test_a_span_that_ends_before_it_begins_is_wrong_usage(audited: Folder) -> None:
    result = audited.m9m("audit", "list", "--since", "1h", "--until", "2h")
    assert (result.returncode, result.stdout) == (2, "")
    assert "before --until" in result.stderr


def test_a_trail_without_rows_is_empty_and_holds(audited: Folder) -> None:
    audited.write("config.yaml", settings("new.db"))
    assert audited.m9m("audit", "list").stdout == ""
    result = audited.m9m("audit", "verify")
    assert (result.returncode, result.stdout) == (0, "rows  0\nhead  -\n")
    assert not (audited.path / "new.db").exists()


def test_verifying_prints_an_anchor_that_holds_later(audited: Folder) -> None:
    result = audited.m9m("audit", "verify")
    assert (result.returncode, result.stderr) == (0, "")
    rows, head = (line.split() for line in result.stdout.splitlines())
    assert rows == ["rows", "5"]
    audited.python(RECORD)
    found = json.loads(audited.m9m("audit", "verify", "--anchor", head[1], "-o", "json").stdout)
    assert (found["holds"], found["rows"], found["problems"]) == (True, 10, [])
    assert found["head"].startswith("10:")


def test_rows_that_were_changed_are_named_and_the_exit_code_says_so(audited: Folder) -> None:
    for seq in (2, 4):
        tamper(audited, "UPDATE m9m_audit SET subject = 'eve' WHERE seq = ?", seq)
    result = audited.m9m("audit", "verify")
    assert result.returncode == 1
    assert result.stderr == "row 2 was changed\nrow 4 was changed\n"
    assert result.stdout.startswith("rows  5\nhead  5:")
    result = audited.m9m("audit", "verify", "-o", "json")
    assert (result.returncode, result.stderr) == (1, "")
    found = json.loads(result.stdout)
    assert found["problems"] == ["row 2 was changed", "row 4 was changed"]
    assert found["holds"] is False


def test_a_database_that_was_put_back_is_found_by_the_anchor(audited: Folder) -> None:
    head = audited.m9m("audit", "verify").stdout.split()[-1]
    (audited.path / "m9m.db").unlink()
    assert audited.m9m("audit", "verify").returncode == 0
    result = audited.m9m("audit", "verify", "--anchor", head)
    assert result.returncode == 1
    assert result.stderr.startswith("row 5, which the anchor names, is missing")


def test_how_far_it_is_shows_on_a_terminal_alone(audited: Folder) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "flask", "m9m", "audit", "verify"]
    result = subprocess.run(
        command, cwd=audited.path, env=audited.environ(), stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert result.returncode == 0
    assert result.stdout.startswith(b"rows  5\n")
    assert "verifying" in shown
    assert "100%" in shown


HOSTILE = [
    ("subject", "a\r\nb\x1b]0;x\x07\u2028\u202e\x7f\x00"),
    ("subject", "x" * 1_000_000),
    ("subject", b"\xff\x1b[2J"),
    ("subject", 7),
    ("at", 2**62),
    ("at", -(2**63)),
    ("at", "never"),
    ("at", 1e300),
    ("at", b"\xff"),
    ("details", "[" * 100_000),
    ("details", '{"a":' * 500 + "1" + "}" * 500),
    ("details", '{"a":NaN}'),
    ("details", '{"a":' + "1" * 5_000 + "}"),
    ("details", '{"a":"\\ud800\\u001b"}'),
    ("details", "[]"),
    ("details", b"\xff"),
    ("seq", -1),
    ("mac", "x"),
    ("event", b""),
]


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_whatever_stands_in_a_row_is_printed_without_harm(audited: Folder, output: str) -> None:
    for seq in range(6, 6 + len(HOSTILE)):
        tamper(
            audited,
            "INSERT INTO m9m_audit (seq, at, event, outcome, mac) VALUES (?, 0, 'x', 'x', x'00')",
            seq,
        )
    for seq, (column, value) in enumerate(HOSTILE, 6):
        tamper(audited, f"UPDATE m9m_audit SET {column} = ? WHERE seq = ?", value, seq)
    result = audited.m9m("audit", "list", "-o", output)
    assert result.returncode == 0, result.stderr
    assert all(line.isprintable() for line in result.stdout.split("\n"))
    if output == "table":
        assert len(result.stdout.splitlines()) == 1 + 5 + len(HOSTILE)
        assert max(map(len, result.stdout.splitlines())) < 4_000
    else:
        load = json.loads if output == "json" else yaml.safe_load
        assert len(load(result.stdout)) == 5 + len(HOSTILE)
    assert all(line.isprintable() for line in audited.m9m("credential", "audit", "x").stdout)


def test_a_row_that_cannot_be_read_is_told_without_what_is_in_it(audited: Folder) -> None:
    tamper(audited, "UPDATE m9m_audit SET subject = CAST(x'1b5b324aff' AS TEXT) WHERE seq = 3")
    result = audited.m9m("audit", "list")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.removesuffix("\n").isprintable()
    assert audited.m9m("audit", "verify").stderr == "row 3 was changed: it cannot be read\n"


def test_the_events_of_a_credential_are_listed_after_it_is_gone(audited: Folder) -> None:
    def run(*arguments: str, stdin: str = "") -> str:
        result = audited.m9m("credential", *arguments, stdin=stdin)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    data = '{"apiKey": "sk-hunter2secret"}'
    made, other = (
        run("create", name, "--type", "apiKey", stdin=data).removeprefix("created ")
        for name in ("Slack", "Other")
    )
    run("get", made, "--show")
    run("delete", made)
    rows = json.loads(run("audit", made, "-o", "json"))
    assert [(row["event"], row["details"].get("change")) for row in rows] == [
        ("credential_changed", "deleted"),
        ("credential_read", None),
        ("credential_changed", "created"),
    ]
    assert {row["target"] for row in rows} == {made}
    assert len(json.loads(run("audit", made, "--limit", "1", "-o", "json"))) == 1
    assert len(json.loads(run("audit", other, "-o", "json"))) == 1
    assert run("audit", "no-such-id", "-o", "json") == "[]"
    assert "hunter2" not in run("audit", made, "-o", "yaml")


def test_a_verification_without_the_key_verifies_nothing(audited: Folder) -> None:
    audited.write(".env", f"M9M_JWT_SECRET={SECRET}\nM9M_ENCRYPTION_KEY={new_key()}\n")
    result = audited.m9m("audit", "verify")
    assert result.returncode == 1
    assert "no encryption key opens" in result.stderr
    audited.write(".env", f"M9M_JWT_SECRET={SECRET}\n")
    result = audited.m9m("audit", "verify")
    assert result.returncode == 1
    assert "encryption_key" in result.stderr
