"""Floods of refusals: a bounded trail, in which nothing is missing but detail."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_m9m import M9M, require_auth
from flask_m9m.audit import Event, EventName, Recorded
from flask_m9m.audit.repeats import Repeats
from flask_m9m.signals import access_denied
from flask_m9m.storage import moment
from flask_m9m.testing import Clock

from .conftest import Audited

HOME, STRANGER = "192.0.2.7", "203.0.113.5"


@pytest.fixture
def repeats(clock: Clock) -> Repeats:
    return Repeats(clock)


@pytest.fixture
def refusal(clock: Clock) -> Callable[..., Event]:
    def make(address: str = HOME, **fields: Any) -> Event:
        event = Event(EventName.ACCESS_DENIED, clock(), "AUTH_REQUIRED", "id", address=address)
        return event._replace(**{"method": "GET", "route": "items", **fields})

    return make


Refusal = Callable[..., Event]


def recorded(repeats: Repeats, *events: Event) -> int:
    """Return how many of these events are recorded as they happen."""
    return sum(not repeats.count(event, event.address) for event in events)


# One kind


def test_the_first_five_are_recorded_and_one_event_a_minute_stands_for_the_rest(
    repeats: Repeats, refusal: Refusal, clock: Clock
) -> None:
    assert recorded(repeats, *[refusal() for _ in range(1_000)]) == 5
    assert repeats.pending
    assert repeats.due() == []
    clock.advance(59)
    assert recorded(repeats, refusal()) == 0
    clock.advance(1)
    (event,) = repeats.due()
    since = f"{moment(clock() - 60):%Y-%m-%dT%H:%M:%S.%f}Z"
    details = {"repeated": 996, "since": since}
    assert event == refusal(request_id=None, at=clock() - 1, details=details)
    assert not repeats.pending
    assert repeats.due() == []


def test_a_flood_that_goes_on_makes_one_event_each_minute(
    repeats: Repeats, refusal: Refusal, clock: Clock
) -> None:
    counted = []
    for _ in range(10):
        recorded(repeats, *[refusal() for _ in range(100)])
        clock.advance(60)
        counted += repeats.due()
    assert [event.details["repeated"] for event in counted] == [95, *[100] * 9]


def test_after_a_minute_without_one_a_refusal_is_recorded_as_it_happens_again(
    repeats: Repeats, refusal: Refusal, clock: Clock
) -> None:
    recorded(repeats, *[refusal() for _ in range(100)])
    for _ in range(2):
        clock.advance(60)
        repeats.due()
    assert recorded(repeats, *[refusal() for _ in range(100)]) == 5


def test_a_few_refusals_are_not_counted_however_long_the_process_lives(
    repeats: Repeats, refusal: Refusal, clock: Clock
) -> None:
    for _ in range(20):
        assert recorded(repeats, refusal()) == 1
        clock.advance(61)
        assert repeats.due() == []


def test_what_differs_between_the_refusals_is_left_out_of_their_event(
    repeats: Repeats, refusal: Refusal
) -> None:
    for name in "abcdefg":
        recorded(repeats, refusal(subject=name, scheme="basic"))
    recorded(repeats, refusal(subject="h", scheme="basic", method="POST"))
    (event,) = repeats.take()
    assert (event.subject, event.scheme, event.method) == (None, "basic", None)
    assert (event.address, event.route, event.details["repeated"]) == (HOME, "items", 3)


def test_addresses_of_one_network_are_one_source_and_the_event_names_the_network(
    repeats: Repeats, refusal: Refusal
) -> None:
    network = "2001:db8::/64"
    told = [repeats.count(refusal(f"2001:db8::{n:x}"), network) for n in range(1, 101)]
    assert told.count(False) == 5
    (event,) = repeats.take()
    assert (event.address, event.details["repeated"]) == (network, 95)


@pytest.mark.parametrize(
    "other",
    [
        {"address": STRANGER},
        {"name": EventName.RATE_LIMITED},
        {"route": "other"},
        {"outcome": "ACCESS_DENIED"},
        {"target": "another credential"},
    ],
)
def test_refusals_that_differ_in_more_are_not_counted_together(
    repeats: Repeats, refusal: Refusal, other: dict[str, str]
) -> None:
    recorded(repeats, *[refusal() for _ in range(100)])
    assert recorded(repeats, *[refusal(**other) for _ in range(100)]) == 5
    assert len(repeats.take()) == 2


@pytest.mark.parametrize(
    "name", sorted(set(EventName) - {"access_denied", "authentication_failed", "rate_limited"})
)
def test_what_succeeds_changes_something_or_reads_a_credential_is_never_counted(
    repeats: Repeats, refusal: Refusal, name: str
) -> None:
    assert recorded(repeats, *[refusal(name=name) for _ in range(100)]) == 100
    assert recorded(repeats, *[refusal(name=name, outcome="success") for _ in range(100)]) == 100


# Many kinds


def test_however_many_addresses_refusals_have_their_events_and_memory_are_bounded(
    repeats: Repeats, refusal: Refusal, clock: Clock
) -> None:
    alone = counted = rows = 0
    for minute in range(1, 4):
        for number in range(10_000):
            event = refusal(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
            alone += not repeats.count(event, event.address)
        clock.advance(60)
        events = repeats.due()
        rows += len(events)
        counted += sum(event.details["repeated"] for event in events)
        assert len(repeats._kinds) <= 257
        assert alone + rows <= minute * (300 + 257)
    assert alone + counted == 3 * 10_000


def test_refusals_beyond_are_counted_by_event_and_outcome_without_an_address(
    repeats: Repeats, refusal: Refusal
) -> None:
    for number in range(300):
        recorded(repeats, refusal(f"10.0.0.{number}"))
    recorded(repeats, *[refusal(STRANGER, route="other") for _ in range(10)])
    first = repeats.take()[-1]
    assert (first.name, first.outcome) == (EventName.ACCESS_DENIED, "AUTH_REQUIRED")
    assert (first.address, first.route, first.details["repeated"]) == (None, None, 49)
    for number in range(10):
        recorded(repeats, refusal(f"10.0.1.{number}"))
    (event,) = repeats.take()
    assert (event.address, event.route, event.details["repeated"]) == (None, "items", 10)


# Clocks, threads, forks


def test_a_clock_that_steps_does_not_hold_a_count_back(
    repeats: Repeats, refusal: Refusal, clock: Clock
) -> None:
    recorded(repeats, *[refusal() for _ in range(10)])
    clock.advance(-365 * 86_400)
    (event,) = repeats.due()
    assert event.details["repeated"] == 5


def test_64_threads_count_each_refusal_once(repeats: Repeats, refusal: Refusal) -> None:
    event, begin = refusal(), threading.Barrier(64)
    alone: Counter[bool] = Counter()
    counted = []

    def refuse() -> None:
        begin.wait()
        told = [repeats.count(event, HOME) for _ in range(500)]
        counted.extend(repeats.take())
        alone.update(told)

    threads = [threading.Thread(target=refuse) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counted += repeats.take()
    assert alone[False] == 5
    assert sum(one.details["repeated"] for one in counted) == 64 * 500 - 5


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_what_was_counted_at_a_fork_is_recorded_by_the_parent_alone(
    repeats: Repeats, refusal: Refusal
) -> None:
    recorded(repeats, *[refusal() for _ in range(10)])
    child = os.fork()
    if child == 0:
        os._exit(int(repeats.pending or bool(repeats.take())))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(repeats.take()) == 1


# In an app


@pytest.fixture
def flooded(audited: Audited, clock: Clock) -> tuple[Flask, M9M]:
    app, m9m = audited()

    @app.get("/open")
    def anyone() -> str:
        return "anyone"

    for _ in range(1_000):
        assert app.test_client().get("/x").status_code == 401
    clock.advance(60)
    return app, m9m


def rows(app: Flask, m9m: M9M) -> list[Recorded]:
    with app.app_context():
        app.extensions["m9m"].trail._backlog.flush()
        return list(reversed(m9m.audit.query()))


def test_a_flood_of_one_client_is_six_rows_which_the_chain_holds(
    flooded: tuple[Flask, M9M],
) -> None:
    app, m9m = flooded
    assert len(rows(app, m9m)) == 5
    assert app.test_client().get("/open").status_code == 200  # any request has the count written
    *first, last = rows(app, m9m)
    assert [row.details for row in first] == [{}] * 5
    assert (last.event, last.outcome, last.route) == ("access_denied", "AUTH_REQUIRED", "view")
    assert (last.address, last.request_id) == ("127.0.0.1", None)
    assert last.details["repeated"] == 995
    with app.app_context():
        found = m9m.audit.verify()
    assert (found.holds, found.rows) == (True, 6)
    app.test_client().get("/open")
    assert len(rows(app, m9m)) == 6


def test_each_refusal_of_a_flood_is_a_signal(audited: Audited) -> None:
    app, _ = audited()
    heard = []

    @access_denied.connect_via(app)
    def hear(app: Flask, event: Event) -> None:
        heard.append(event.details)

    for _ in range(100):
        app.test_client().get("/x")
    app.extensions["m9m"].trail.flush()
    assert heard == [{}] * 100


def test_attempts_at_many_names_from_one_address_are_one_kind(audited: Audited) -> None:
    app, m9m = audited(
        api={"enabled": True}, security={"lockout": {"attempts": 3}, "jwt": {"secret": "s" * 40}}
    )
    for number in range(200):
        sent = {"username": f"user-{number}\x1b[2J", "password": "wrong horse"}
        assert app.test_client().post("/api/v1/auth/login", json=sent).status_code in (401, 429)
    with app.app_context():
        m9m.audit.flush()
        found = m9m.audit.query()
    assert len(found) <= 2 * 6
    assert sum(row.details.get("repeated", 1) for row in found) == 200


def test_a_target_of_any_type_is_counted(repeats: Repeats, refusal: Refusal) -> None:
    assert recorded(repeats, *[refusal(target=["x"]) for _ in range(10)]) == 5
    assert len(repeats.take()) == 1


def test_an_omitted_event_is_not_counted_either(audited: Audited) -> None:
    app, m9m = audited({"omit": ["access_denied"]})
    for _ in range(20):
        app.test_client().get("/x")
    assert not app.extensions["m9m"].trail.repeats.pending
    assert rows(app, m9m) == []


def test_a_guarded_view_in_a_flood_still_records_who_gets_in(audited: Audited) -> None:
    app, m9m = audited(security={"jwt": {"secret": "s" * 40}})

    @app.get("/y")
    @require_auth
    def other() -> str:
        return "y"

    with app.app_context():
        token = m9m.tokens.issue("ann")
    for _ in range(50):
        app.test_client().get("/y")
        app.test_client().get("/y", headers={"Authorization": f"Bearer {token}"})
    with app.app_context():
        m9m.audit.flush()
        found = Counter(row.event for row in m9m.audit.query())
    assert found == {"token_issued": 1, "authenticated": 50, "access_denied": 6}
