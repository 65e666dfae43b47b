"""Signals: each is sent once, to whoever wants to know, by the app in which it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from blinker import Signal
from flask import Flask, has_request_context

from flask_m9m import M9M, current_identity, require_auth, signals
from flask_m9m.audit import Event, EventName
from flask_m9m.auth.api_key_format import make_key
from flask_m9m.testing import Clock, make_settings

from .served import PASSWORD, Served, bearer, make_app, serving

SIGNALS = sorted(set(EventName) - {EventName.EVENTS_DROPPED})
Heard = list[tuple[Any, Event]]


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


def signal(name: str) -> Signal:
    found: Signal = getattr(signals, name)
    return found


@contextmanager
def listening() -> Iterator[Heard]:
    """Hear every signal."""
    heard: Heard = []

    def hear(sender: Any, event: Event) -> None:
        heard.append((sender, event))

    with ExitStack() as stack:
        for name in SIGNALS:
            stack.enter_context(signal(name).connected_to(hear))
        yield heard


@pytest.fixture
def served(sqlite_url: str, clock: Clock) -> Iterator[Served]:
    app, m9m = make_app(sqlite_url, clock)
    with serving(app, m9m) as made:
        with app.app_context():
            m9m.users.create("ann", PASSWORD)
        yield made


def token(served: Served) -> str:
    with served.app.app_context():
        return served.m9m.tokens.issue("ann")


def create_credential(served: Served) -> str:
    data = {"apiKey": "hunter2"}
    return served.m9m.credentials.create("x", "apiKey", data).id


def prepared(served: Served, name: str) -> Callable[[], object]:
    """Prepare something that has one event of a name, and return what does it."""
    m9m = served.m9m
    text = token(served)
    key, _ = m9m.api_keys.create("ci", "ann")
    credential = create_credential(served)
    served.send("GET", "/once")
    acts: dict[str, Callable[[], object]] = {
        "authenticated": lambda: served.send("GET", "/x", bearer(text)),
        "authentication_failed": lambda: served.send(
            "GET", "/x", {"X-API-Key": make_key("m9m_sk_")}
        ),
        "access_denied": lambda: served.send("GET", "/x"),
        "rate_limited": lambda: served.send("GET", "/once"),
        "token_issued": lambda: m9m.tokens.issue("ann"),
        "token_revoked": lambda: m9m.tokens.revoke(text),
        "api_key_created": lambda: m9m.api_keys.create("ci", "ann"),
        "api_key_revoked": lambda: m9m.api_keys.revoke(key.id),
        "user_changed": lambda: m9m.users.disable("ann"),
        "credential_read": lambda: m9m.credentials.get(credential),
        "credential_changed": lambda: m9m.credentials.delete(credential),
        "keys_rotated": m9m.credentials.rotate,
    }
    return acts[name]


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_is_sent_once_by_the_app(served: Served, name: str) -> None:
    with served.app.app_context():
        act = prepared(served, name)
        with listening() as heard:
            act()
    assert [(sender, event.name) for sender, event in heard if event.name == name] == [
        (served.app, name)
    ]
    (row,) = [row for row in served.rows()[-3:] if row.event == name][-1:]
    (event,) = [event for _, event in heard if event.name == name]
    assert (row.subject, row.target, row.outcome, row.request_id) == (
        event.subject,
        event.target,
        event.outcome,
        event.request_id,
    )


def test_there_are_twelve() -> None:
    assert len(SIGNALS) == 12
    assert all(isinstance(signal(name), Signal) for name in SIGNALS)


def test_the_identity_is_there_within_the_request(served: Served) -> None:
    found: list[tuple[str, bool]] = []

    def look(sender: Flask, event: Event) -> None:
        found.append((current_identity.subject, has_request_context()))

    with signals.authenticated.connected_to(look):
        served.send("GET", "/x", bearer(token(served)))
    with signals.access_denied.connected_to(look):
        served.send("GET", "/write", bearer(token(served)))
    assert found == [("ann", True), ("ann", True)]


@pytest.mark.parametrize("name", ["authenticated", "access_denied", "token_issued"])
def test_a_receiver_that_fails_breaks_nothing(
    served: Served, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(sender: Flask, event: Event) -> None:
        raise RuntimeError("the receiver's own")

    text = token(served)
    with signal(name).connected_to(fail), listening() as heard:
        assert served.send("GET", "/x", bearer(text)).status == 200
        assert served.send("GET", "/x").status == 401
        token(served)
    assert [event.name for _, event in heard] == ["authenticated", "access_denied", "token_issued"]
    # What is changed is written at once, and what a request came to a moment later.
    assert sorted(row.event for row in served.rows()[-3:]) == [
        "access_denied",
        "authenticated",
        "token_issued",
    ]
    (record,) = [one for one in caplog.records if name in one.getMessage() and one.exc_info]
    assert record.name == "flask_m9m"


def test_two_apps_of_one_m9m_are_told_apart(clock: Clock) -> None:
    m9m = M9M(clock=clock)
    apps = []
    for name in ("one", "two"):
        app = Flask(name)
        app.testing = True
        app.add_url_rule("/x", "view", require_auth(lambda: "x"))
        m9m.init_app(app, settings=make_settings())
        apps.append(app)
    one, two = apps
    heard: list[Any] = []

    def hear(sender: Flask, event: Event) -> None:
        heard.append((sender, event.route))

    with signals.access_denied.connected_to(hear, sender=two):
        for app in apps:
            app.test_client().get("/x")
    assert heard == [(two, "view")]
    heard.clear()
    with signals.access_denied.connected_to(hear):
        for app in apps:
            app.test_client().get("/x")
    assert heard == [(one, "view"), (two, "view")]


def test_what_is_not_committed_is_not_told(served: Served) -> None:
    with served.app.app_context():
        served.m9m.users.create("bob", PASSWORD)
        with listening() as heard:
            with pytest.raises(Exception, match="bob"):
                served.m9m.users.create("bob", PASSWORD)
            with pytest.raises(ValueError, match="does not have"):
                served.m9m.api_keys.create("ci", "bob", "items:write")
    assert heard == []


@pytest.mark.parametrize("audit", [{"enabled": False}, {"sinks": []}, {"omit": SIGNALS}])
def test_signals_are_sent_where_nothing_is_written(
    sqlite_url: str, clock: Clock, audit: dict[str, Any]
) -> None:
    app, m9m = make_app(sqlite_url, clock, audit={"sinks": ["database"], **audit})
    with serving(app, m9m) as served, listening() as heard:
        text = token(served)
        served.send("GET", "/x", bearer(text))
        served.send("GET", "/x")
        assert served.rows() == []
    assert [event.name for _, event in heard] == ["token_issued", "authenticated", "access_denied"]
