"""What an app records and looks for, and what is written of it, to the log and the database."""

from __future__ import annotations

import json
import logging
import re
import secrets
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from werkzeug.test import EnvironBuilder

from flask_m9m import M9M, require_auth
from flask_m9m.audit import EventName
from flask_m9m.errors import DatabaseUnavailable, TrailBroken
from flask_m9m.storage.tables import audit_ends, audit_events, audit_keys
from flask_m9m.testing import Clock, client_as, make_settings
from tests.databases import settle
from tests.extension.credentials import Life
from tests.extension.credentials import make_app as make_living_app
from tests.traces import Traces

from .conftest import Audited, new_key
from .served import make_app
from .test_chain import rewritten, tamper

LINES = "flask_m9m.audit"


@pytest.fixture(autouse=True)
def _lines_are_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=LINES)


@contextmanager
def moved_away(app: Flask) -> Iterator[None]:
    """Take a SQLite file away for a while."""
    database = app.extensions["m9m"].database
    path = Path(database._connected().url.database)
    database._connected().dispose()
    away = path.rename(path.with_name("away"))
    path.mkdir()
    yield
    path.rmdir()
    away.rename(path)


# What an app records


@pytest.mark.parametrize("name", ["a", "order.paid", "x-1_2.3", "a" * 64])
def test_an_event_is_called_what_the_app_calls_it(trail: M9M, name: str) -> None:
    trail.audit.record(name, subject="ann", total=3, items=["a", None, True])
    (row,) = trail.audit.query(limit=1)
    assert (row.event, row.subject, row.outcome) == (name, "ann", "success")
    assert row.details == {"total": 3, "items": ["a", None, True]}


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "_a", "a b", "a\n", "ä", "a" * 65, None, 7, b"a", "a\x00"]
)
def test_what_is_no_name_is_refused(trail: M9M, name: Any) -> None:
    with pytest.raises(ValueError, match="1 to 64 characters of a-z"):
        trail.audit.record(name)
    assert len(trail.audit.query()) == 10


@pytest.mark.parametrize("name", list(EventName))
def test_nobody_records_what_flask_m9m_itself_says(trail: M9M, name: str) -> None:
    with pytest.raises(ValueError, match="flask-m9m's own"):
        trail.audit.record(str(name))


@pytest.mark.parametrize(
    "details",
    [{"x": "a" * 8_192}, {"x": object()}, {"x": {1: b"x"}}, {"x": {frozenset(): 1}}],
)
def test_details_that_are_too_long_or_no_json_are_refused(
    trail: M9M, details: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="details must be"):
        trail.audit.record("counted", **details)
    assert len(trail.audit.query()) == 10


def test_details_that_go_in_a_circle_or_too_deep_are_refused(trail: M9M) -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(4_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(ValueError, match="details must be JSON"):
            trail.audit.record("counted", value=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_have_are_refused(trail: M9M, value: float) -> None:
    with pytest.raises(ValueError, match="details must be JSON"):
        trail.audit.record("counted", value=value)


def test_details_of_8_kib_are_kept(trail: M9M) -> None:
    longest = "a" * (8_192 - len('{"x":""}'))
    trail.audit.record("counted", x=longest)
    assert trail.audit.query(limit=1)[0].details == {"x": longest}


def test_within_a_request_the_event_says_which(audited: Audited) -> None:
    app, m9m = audited()
    app.add_url_rule("/count", "count", counting(m9m))
    answer = client_as(app, "ann").get("/count")
    (row,) = rows_of(app, m9m, event="counted")
    assert row.request_id == answer.headers["X-Request-ID"]
    assert (row.subject, row.scheme, row.method, row.route) == ("ann", "bearer", "GET", "count")


def counting(m9m: M9M) -> Any:
    @require_auth
    def count() -> str:
        m9m.audit.record("counted")
        return "counted"

    return count


def rows_of(app: Flask, m9m: M9M, **sought: Any) -> Any:
    with app.app_context():
        m9m.audit.flush()
        return m9m.audit.query(**sought)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_cannot_be_written_down_is_told(audited: Audited) -> None:
    app, m9m = audited()
    with app.app_context():
        m9m.audit.record("counted")
        m9m.users.create("ann", "correct horse")
        with moved_away(app):
            with pytest.raises(DatabaseUnavailable):
                m9m.audit.record("counted")
            with pytest.raises(DatabaseUnavailable):
                m9m.audit.query()
            with pytest.raises(DatabaseUnavailable):
                m9m.audit.verify()
        assert [row.event for row in m9m.audit.query()] == ["user_changed", "counted"]
        assert m9m.audit.verify().holds


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_change_whose_event_cannot_be_written_does_not_happen(audited: Audited) -> None:
    app, m9m = audited()
    with app.app_context():
        m9m.users.create("ann", "correct horse")
        data = {"apiKey": "hunter2"}
        kept = m9m.credentials.create("x", "apiKey", data).id
        refusing = "BEGIN SELECT RAISE(ABORT, 'no'); END"
        tamper_sql(f"CREATE TRIGGER t BEFORE INSERT ON m9m_audit {refusing}")
        changes: list[Any] = [
            lambda: m9m.users.disable("ann"),
            lambda: m9m.users.create("bob", "correct horse"),
            lambda: m9m.api_keys.create("ci", "ann"),
            lambda: m9m.tokens.issue_pair("ann"),
            lambda: m9m.tokens.revoke_subject("ann"),
            lambda: m9m.credentials.get(kept),
            lambda: m9m.credentials.create("y", "apiKey", data),
            lambda: m9m.credentials.delete(kept),
        ]
        for change in changes:
            with pytest.raises(DatabaseUnavailable):
                change()
        tamper_sql("DROP TRIGGER t")
        assert [user.disabled for user in m9m.users.list()] == [False]
        assert m9m.api_keys.list() == []
        assert [one.id for one in m9m.credentials.list()] == [kept]
        assert len(m9m.audit.query()) == 2
        assert m9m.audit.verify().holds


def tamper_sql(statement: str) -> None:
    tamper(sa.text(statement))


EMPTIED = [sa.delete(table) for table in (audit_events, audit_ends, audit_keys)]


def test_whoever_wrote_to_a_trail_sees_that_it_was_emptied(trail: M9M) -> None:
    tamper(*EMPTIED)
    with pytest.raises(TrailBroken):
        trail.audit.record("counted")


def test_a_process_that_comes_to_an_emptied_trail_begins_anew_and_an_anchor_shows_it(
    trail: M9M, audited: Audited
) -> None:
    head = trail.audit.verify().head
    tamper(*EMPTIED)
    app, other = audited()
    with app.app_context():
        other.audit.record("counted")
        assert [row.seq for row in other.audit.query()] == [1]
        assert other.audit.verify().holds
        assert not other.audit.verify(str(head)).holds


# What is looked for


@pytest.fixture
def varied(audited: Audited, clock: Clock) -> Iterator[M9M]:
    """A trail of three rows, a minute apart, of which no two have anything in common."""
    app, m9m = audited()
    with app.app_context():
        for number, name in enumerate(("first", "second", "third")):
            m9m.audit.record(name, subject=f"user-{number}")
            tamper(rewritten(number + 1, address=f"192.0.2.{number}", target=f"t{number}"))
            clock.advance(60)
        yield m9m


@pytest.mark.parametrize(
    "sought",
    [{"subject": "user-1"}, {"event": "second"}, {"address": "192.0.2.1"}, {"target": "t1"}],
)
def test_rows_are_found_by_what_they_have(varied: M9M, sought: dict[str, str]) -> None:
    assert [row.seq for row in varied.audit.query(**sought)] == [2]
    (name,) = sought
    assert list(varied.audit.query(**{**sought, name: "other"})) == []  # type: ignore[arg-type]


def test_rows_are_found_by_when_they_happened(varied: M9M, clock: Clock) -> None:
    second = datetime.fromtimestamp(clock() - 120, UTC)
    assert [row.seq for row in varied.audit.query(since=second)] == [3, 2]
    assert [row.seq for row in varied.audit.query(until=second)] == [1]
    elsewhere = second.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
    assert [row.seq for row in varied.audit.query(since=elsewhere)] == [3, 2]
    assert [row.at for row in varied.audit.query(since=second, limit=1, event="second")] == [second]
    tick = timedelta(microseconds=1)
    found = varied.audit.query(since=second, until=second + tick)
    assert [row.seq for row in found] == [2]
    assert list(varied.audit.query(since=second + tick, until=second + 2 * tick)) == []


def test_rows_come_in_pages(varied: M9M) -> None:
    assert [row.seq for row in varied.audit.query(limit=2)] == [3, 2]
    assert [row.seq for row in varied.audit.query(limit=2, before=2)] == [1]
    assert list(varied.audit.query(before=1)) == []


def test_a_moment_without_a_zone_is_refused(varied: M9M) -> None:
    for name in ("since", "until"):
        with pytest.raises(ValueError, match=f"{name} must have a time zone"):
            varied.audit.query(**{name: datetime(2026, 1, 31)})  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_a_limit_out_of_range_is_refused(varied: M9M, limit: int) -> None:
    with pytest.raises(ValueError, match="limit must be 1 to 10000"):
        varied.audit.query(limit=limit)


def test_where_there_is_no_database_nothing_is_found_and_none_is_made(
    tmp_path: Path, clock: Clock
) -> None:
    app = Flask("app")
    url = f"sqlite:///{tmp_path}/m9m.db"
    m9m = M9M(app, settings=make_settings({"database": {"url": url}}), clock=clock)
    with app.app_context():
        assert list(m9m.audit.query()) == []
        assert m9m.audit.verify().rows == 0
    assert not (tmp_path / "m9m.db").exists()


@pytest.mark.parametrize("at", [2**62, -(2**62)])
def test_a_row_with_a_time_that_is_none_is_returned(varied: M9M, at: int) -> None:
    tamper(rewritten(2, at=at))
    assert [row.seq for row in varied.audit.query()] == [3, 2, 1]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_no_rows_number_is_a_text(varied: M9M) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        tamper_sql("UPDATE m9m_audit SET seq = 'x' WHERE seq = 2")


# What is left out


def test_what_is_omitted_is_written_nowhere_and_the_rest_is(
    audited: Audited, caplog: pytest.LogCaptureFixture
) -> None:
    omit = ["authenticated", "user_changed"]
    app, m9m = audited({"sinks": ["log", "database"], "omit": omit})
    with app.app_context():
        m9m.users.create("ann", "correct horse")
        m9m.audit.record("other")
    client_as(app, "ann", scopes=["x"]).get("/x")
    app.test_client().get("/x")
    events = ["other", "token_issued", "access_denied"]
    assert [row.event for row in rows_of(app, m9m)] == list(reversed(events))
    assert [line["event"] for line in lines(caplog) if line["event"] != "audit_anchor"] == events


# Log lines


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return what each line says, after a look at its form."""
    found = []
    for record in caplog.records:
        if record.name == LINES:
            text = record.getMessage()
            assert text.isascii()
            assert text.isprintable()
            assert record.levelno == logging.INFO
            found.append(json.loads(text))
    return found


HOSTILE = [
    "a\r\nb",
    "\x1b[2J\x1b]0;x\x07",
    "\u2028\u2029\x85",
    "\u202eevil\u2066",
    "\ud800",
    "nul\x00",
    "\x7f",
    '", "event": "authenticated',
    "x" * 1_000_000,
    "\u202e" * 255,
    "\U0001f600" * 255,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_is_in_an_event_a_line_is_one_line_and_a_row_is_kept(
    audited: Audited, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    app, m9m = audited({"sinks": ["log", "database"]})
    with app.app_context():
        m9m.audit.record("counted", subject=text, note=text[:1_000])
        (row,) = m9m.audit.query()
        assert m9m.audit.verify().holds
    (line,) = [one for one in lines(caplog) if one["event"] == "counted"]
    assert line["subject"] == row.subject
    assert row.subject is not None
    assert row.subject.isprintable()
    assert len(row.subject) <= 255
    assert line["details"] == row.details == {"note": text[:1_000]}


def test_two_subjects_of_which_one_begins_like_the_other_are_told_apart(trail: M9M) -> None:
    for subject in ("x" * 255, "x" * 256, "x" * 257):
        trail.audit.record("counted", subject=subject)
    assert len({row.subject for row in trail.audit.query(limit=3)}) == 3


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("method", ["GET\r\nX", "\x1b[2J", "\xff", "A" * 100_000, "get"])
def test_whatever_a_request_is_a_line_is_one_line(
    audited: Audited, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    app, m9m = audited({"sinks": ["log", "database"]})
    name = b64encode("ev\u202eil".encode() + b"\xe2\x80\xa8:x").decode()
    environ = EnvironBuilder("/x", headers={"Authorization": f"Basic {name}"}).get_environ()
    environ["REQUEST_METHOD"], environ["REMOTE_ADDR"] = method, "192.0.2.1\r\nx"
    b"".join(app.wsgi_app(environ, lambda status, headers, exc_info=None: lambda data: None))
    app.test_client().get("/x", headers={"Authorization": "Bearer \xff\x1b"})
    assert len(lines(caplog)) >= 1
    for row in rows_of(app, m9m):
        assert all(one is None or str(one).isprintable() for one in row)


def test_no_name_that_is_tried_passes_for_another_address_in_a_line(
    audited: Audited, caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = audited({"sinks": ["log"]}, security={"basic_auth": {"enabled": True}})
    names = ['x", "address": "1.2.3.4', 'x"}\n{"address": "1.2.3.4"}', "x\u2028\x1b[2K", "é" * 900]
    for name in names:
        sent = {"Authorization": "Basic " + b64encode(f"{name}:x".encode()).decode()}
        app.test_client().get("/x", headers=sent)
    written = [one.getMessage() for one in caplog.records if one.name == LINES]
    assert len(written) == len(names)
    for line in written:
        assert re.findall(r'"address": "([^"]*)"', line) == ["127.0.0.1"]
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 2_500


def test_lines_go_to_the_log_alone_where_nothing_else_is_said(
    sqlite_url: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    app, m9m = make_app(sqlite_url, clock, audit={})
    app.testing = True
    app.test_client().get("/x")
    with app.app_context():
        m9m.audit.record("counted", subject="ann", number=1)
        assert list(m9m.audit.query()) == []
    denied, counted = lines(caplog)
    assert (denied["event"], denied["outcome"]) == ("access_denied", "AUTH_REQUIRED")
    assert counted == {
        "time": "2025-06-15T15:06:40.000000Z",
        "event": "counted",
        "outcome": "success",
        "subject": "ann",
        "details": {"number": 1},
    }


def test_a_trail_that_is_switched_off_writes_nothing(
    audited: Audited, caplog: pytest.LogCaptureFixture
) -> None:
    app, m9m = audited({"enabled": False, "sinks": ["log", "database"]})
    app.test_client().get("/x")
    with app.app_context():
        m9m.audit.record("counted")
    assert list(rows_of(app, m9m)) == []
    assert lines(caplog) == []


def test_the_head_is_logged_once_an_hour(
    audited: Audited, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    app, m9m = audited()
    with app.app_context():
        for _ in range(5):
            m9m.audit.record("counted")
            clock.advance(1_500)
        anchors = [line["anchor"] for line in lines(caplog)]
        assert [anchor.partition(":")[0] for anchor in anchors] == ["1", "4"]
        for anchor in anchors:
            assert m9m.audit.verify(anchor).holds


# Secrets


def test_no_secret_is_in_rows_or_lines(
    sqlite_url: str, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")
    secret, key = secrets.token_urlsafe(48), new_key()
    app, m9m = make_living_app(
        clock,
        secret,
        database={"url": sqlite_url},
        audit={"sinks": ["log", "database"]},
        credentials={"encryption_key": key},
    )
    app.extensions["m9m"].database.upgrade()
    life = Life(app, m9m, clock)
    life.lead()
    value, other = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    life.secrets |= {"secret": secret, "encryption key": key, "value": value, "other": other}
    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", {"apiKey": value})
        m9m.credentials.get(made.id)
        m9m.credentials.update(made.id, "y", {"apiKey": other})
        m9m.credentials.rotate()
        m9m.credentials.delete(made.id)
        m9m.audit.flush()
        rows = m9m.audit.query(limit=10_000)
    settle()
    assert {row.event for row in rows} >= set(EventName) - {
        EventName.RATE_LIMITED,
        EventName.EVENTS_DROPPED,
        EventName.ACCESS_DENIED,
    }
    assert len(lines(caplog)) >= len(rows)
    traces = Traces(life.secrets)
    said = [repr(row) for row in rows]
    said += [f"{one.getMessage()} {one.args}" for one in caplog.records if one.name == LINES]
    assert {name for text in said for name in traces.found_in(text)} == set()
    assert traces.found_in(f'{{"x": "{value}"}}') == {"value"}
