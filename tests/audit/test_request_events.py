"""Which request makes which event, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_m9m import require_auth
from flask_m9m.auth.api_key_format import make_key
from flask_m9m.errors import InvalidToken
from flask_m9m.testing import Clock

from .served import (
    ALLOWED,
    EVIL,
    PASSWORD,
    Answer,
    Served,
    basic,
    bearer,
    make_app,
    serving,
)

LOGIN, REFRESH, LOGOUT = (f"/api/v1/auth/{name}" for name in ("login", "refresh", "logout"))
FIELDS = ("event", "outcome", "subject", "scheme", "method", "route", "target")


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


@pytest.fixture
def served(sqlite_url: str, clock: Clock) -> Iterator[Served]:
    app, m9m = make_app(sqlite_url, clock)
    with serving(app, m9m) as made:
        with app.app_context():
            m9m.users.create("ann", PASSWORD)
        yield made


def token(served: Served, **options: Any) -> tuple[str, str]:
    """Return a new token of ann's, and its `jti`."""
    with served.app.app_context():
        made = served.m9m.tokens.issue("ann", **options)
        try:
            jti = served.m9m.tokens.verify(made).credential_id
        except InvalidToken:
            jti = None
    return made, jti or ""


def told(answer: Answer) -> list[tuple[Any, ...]]:
    """Return what rows say, after a look at what all of a request's have in common."""
    for row in answer.rows:
        assert row.request_id == answer.request_id
        assert row.address == "127.0.0.1"
    return [tuple(getattr(row, name) for name in FIELDS) for row in answer.rows]


def failed(
    code: str, scheme: str | None = None, subject: str | None = None, **other: str
) -> tuple[Any, ...]:
    method, route = other.get("method", "GET"), other.get("route", "view")
    return ("authentication_failed", code, subject, scheme, method, route, None)


def denied(
    code: str, route: str = "view", method: str = "GET", **who: str | None
) -> tuple[Any, ...]:
    subject, scheme, target = (who.get(name) for name in ("subject", "scheme", "target"))
    return ("access_denied", code, subject, scheme, method, route, target)


# Credentials


def test_a_good_token(served: Served) -> None:
    text, jti = token(served)
    answer = served.ask("GET", "/x", bearer(text))
    assert answer.status == 200
    assert told(answer) == [
        ("authenticated", "success", "ann", "bearer", "GET", "view", jti),
    ]


def test_a_good_api_key(served: Served) -> None:
    with served.app.app_context():
        key, text = served.m9m.api_keys.create("ci", "ann")
    answer = served.ask("GET", "/x", {"X-API-Key": text})
    assert told(answer) == [
        ("authenticated", "success", "ann", "api_key", "GET", "view", key.id),
    ]


def test_a_token_that_is_none(served: Served) -> None:
    answer = served.ask("GET", "/x", bearer("x.y.z"))
    assert told(answer) == [failed("INVALID_TOKEN", "bearer")]


def test_a_token_that_expired(served: Served, clock: Clock) -> None:
    text, _ = token(served, expires_in=1)
    clock.advance(2)
    assert told(served.ask("GET", "/x", bearer(text))) == [failed("INVALID_TOKEN", "bearer")]


def test_an_unknown_api_key(served: Served) -> None:
    answer = served.ask("GET", "/x", {"X-API-Key": make_key("m9m_sk_")})
    assert told(answer) == [failed("INVALID_API_KEY", "api_key")]


def test_a_wrong_password_names_whom_it_was_claimed_for(served: Served) -> None:
    answer = served.ask("GET", "/x", basic("ann", "wrong"))
    assert told(answer) == [failed("INVALID_CREDENTIALS", "basic", "ann")]
    answer = served.ask("GET", "/x", basic("nobody", "wrong"))
    assert told(answer) == [failed("INVALID_CREDENTIALS", "basic", "nobody")]


def test_a_scheme_that_nobody_knows(served: Served) -> None:
    answer = served.ask("GET", "/x", {"Authorization": "Digest x"})
    assert told(answer) == [failed("INVALID_CREDENTIALS")]


def test_two_credentials(served: Served) -> None:
    text, _ = token(served)
    answer = served.ask("GET", "/x", {**bearer(text), "X-API-Key": make_key("m9m_sk_")})
    assert told(answer) == [failed("INVALID_REQUEST")]


def test_a_lockout(served: Served) -> None:
    for number in range(10):
        served.send("GET", "/x", basic("ann", f"wrong {number}"))
    answer = served.ask("GET", "/x", basic("ann", "wrong"))
    assert answer.status == 429
    assert told(answer) == [failed("TOO_MANY_ATTEMPTS", "basic", "ann")]


# Refusals


def test_no_credential(served: Served) -> None:
    answer = served.ask("GET", "/x")
    assert told(answer) == [denied("AUTH_REQUIRED")]


def test_a_missing_scope(served: Served) -> None:
    text, jti = token(served)
    answer = served.ask("GET", "/write", bearer(text))
    assert told(answer) == [
        ("authenticated", "success", "ann", "bearer", "GET", "write", jti),
        denied("ACCESS_DENIED", "write", subject="ann", scheme="bearer", target=jti),
    ]


def test_a_token_that_is_not_fresh(served: Served) -> None:
    text, jti = token(served)
    answer = served.ask("GET", "/fresh", bearer(text))
    assert told(answer)[1] == denied(
        "FRESH_TOKEN_REQUIRED", "fresh", subject="ann", scheme="bearer", target=jti
    )


def test_a_request_that_another_site_made_a_browser_send(served: Served) -> None:
    headers = {**basic("ann", PASSWORD), "Origin": EVIL, "Sec-Fetch-Site": "cross-site"}
    answer = served.ask("POST", "/x", headers)
    assert told(answer) == [denied("CSRF_FAILED", method="POST", subject="ann", scheme="basic")]


def test_a_preflight(served: Served) -> None:
    asked = {"Access-Control-Request-Method": "GET"}
    answer = served.ask("OPTIONS", "/x", {**asked, "Origin": EVIL})
    assert told(answer) == [denied("CORS_REFUSED", method="OPTIONS")]
    answer = served.ask("OPTIONS", "/x", {**asked, "Origin": ALLOWED})
    assert (answer.status, told(answer)) == (204, [])


def test_one_request_too_many(served: Served) -> None:
    assert told(served.ask("GET", "/once")) == []
    answer = served.ask("GET", "/once")
    assert told(answer) == [("rate_limited", "RATE_LIMITED", None, None, "GET", "once", None)]


def test_a_link_that_nobody_signed(served: Served) -> None:
    answer = served.ask("GET", "/signed?m9m_signature=x")
    assert told(answer) == [denied("INVALID_SIGNATURE", "signed")]


def test_an_address_that_is_not_allowed(sqlite_url: str, clock: Clock) -> None:
    app, m9m = make_app(sqlite_url, clock, server={"allowed_networks": ["192.0.2.0/24"]})
    with serving(app, m9m) as served:
        text, _ = token(served)
        assert told(served.ask("GET", "/x", bearer(text))) == [denied("ADDRESS_NOT_ALLOWED")]


def test_a_request_without_tls(sqlite_url: str, clock: Clock) -> None:
    app, m9m = make_app(sqlite_url, clock, server={"https": "refuse"})
    with serving(app, m9m) as served:
        text, _ = token(served)
        answer = served.ask("GET", "/x", bearer(text))
        assert told(answer) == [denied("HTTPS_REQUIRED")]


@pytest.mark.parametrize("path", ["/open", "/no/such/path"])
def test_what_nobody_is_asked_to_prove_makes_no_event(served: Served, path: str) -> None:
    assert told(served.ask("GET", path)) == []
    assert told(served.ask("GET", path, bearer("x.y.z"))) == []


def test_a_credential_that_nobody_could_judge(served: Served, clock: Clock) -> None:
    with served.app.app_context():
        _, text = served.m9m.api_keys.create("ci", "ann")
    before = len(served.rows())
    database = served.app.extensions["m9m"].database
    path = Path(database._connected().url.database)
    database._connected().dispose()
    moved = path.rename(path.with_name("moved"))
    path.mkdir()
    clock.advance(60.0)  # past `max_staleness`
    answer = served.send("GET", "/x", {"X-API-Key": text})
    assert answer.status == 503
    path.rmdir()
    moved.rename(path)
    answer = answer._replace(rows=served.rows()[before:])
    assert told(answer) == [failed("SERVICE_UNAVAILABLE", "api_key")]


# The REST API


def log_in(served: Served, password: str = PASSWORD) -> Answer:
    return served.ask("POST", LOGIN, body={"username": "ann", "password": password})


def test_a_login(served: Served) -> None:
    answer = log_in(served)
    route = "m9m_sessions.login"
    issued, authenticated = told(answer)
    assert issued[:6] == ("token_issued", "success", "ann", None, "POST", route)
    assert authenticated == ("authenticated", "success", "ann", "password", "POST", route, None)


@pytest.mark.parametrize("name", ["ann", "nobody"])
def test_a_login_with_a_wrong_password_is_told_once(served: Served, name: str) -> None:
    answer = served.ask("POST", LOGIN, body={"username": name, "password": "wrong"})
    assert told(answer) == [
        failed("INVALID_CREDENTIALS", "password", name, method="POST", route="m9m_sessions.login")
    ]


def test_a_lockout_of_logins_is_told_once(served: Served) -> None:
    for number in range(10):
        served.send("POST", LOGIN, body={"username": "ann", "password": f"wrong {number}"})
    assert told(log_in(served)) == [
        failed("TOO_MANY_ATTEMPTS", "password", "ann", method="POST", route="m9m_sessions.login")
    ]


def test_a_logout(served: Served) -> None:
    session = log_in(served)
    answer = served.ask("POST", LOGOUT, bearer(session.body["token"]))
    revoked, authenticated = told(answer)
    sid = session.rows[0].target
    route = "m9m_sessions.logout"
    assert revoked == ("token_revoked", "success", "ann", "bearer", "POST", route, sid)
    assert authenticated[:6] == ("authenticated", "success", "ann", "bearer", "POST", route)
    again = served.ask("GET", "/x", bearer(session.body["token"]))
    assert told(again) == [failed("INVALID_TOKEN", "bearer")]


def test_a_refresh_token_that_is_used_again(served: Served, clock: Clock) -> None:
    session = log_in(served)
    spent, sid = {"refreshToken": session.body["refreshToken"]}, session.rows[0].target
    route = "m9m_sessions.refresh"
    answer = served.ask("POST", REFRESH, body=spent)
    assert told(answer) == [("token_issued", "success", "ann", None, "POST", route, sid)]
    clock.advance(20)
    answer = served.ask("POST", REFRESH, body=spent)
    assert told(answer) == [
        ("token_revoked", "success", "ann", None, "POST", route, sid),
        failed("INVALID_TOKEN", method="POST", route=route),
    ]
    assert answer.rows[0].details == {
        "of": "session",
        "reason": "the refresh token was used before",
    }


def test_a_credential_of_somebody_else(served: Served) -> None:
    text, _ = token(served)
    data = {"name": "x", "type": "apiKey", "data": {"apiKey": "hunter2"}}
    made = served.ask("POST", "/api/v1/credentials", bearer(text), body=data)
    assert [row.event for row in made.rows] == ["credential_changed", "authenticated"]
    with served.app.app_context():
        other = served.m9m.tokens.issue("bob")
    answer = served.ask("GET", f"/api/v1/credentials/{made.body['id']}", bearer(other))
    assert answer.status == 404
    assert [(row.event, row.outcome, row.subject, row.target) for row in answer.rows[:1]] == [
        ("access_denied", "NOT_FOUND", "bob", made.body["id"])
    ]


# The app's part


@pytest.mark.parametrize("what", [401, 403, InvalidToken, Exception])
def test_an_error_handler_of_the_apps_own_hides_no_event(
    sqlite_url: str, clock: Clock, what: Any
) -> None:
    app, m9m = make_app(sqlite_url, clock)
    app.register_error_handler(what, lambda error: ("all is well", 200))
    with serving(app, m9m) as served:
        text, _ = token(served)
        assert told(served.ask("GET", "/x", bearer("x.y.z"))) == [failed("INVALID_TOKEN", "bearer")]
        answer = served.ask("GET", "/write", bearer(text))
        assert [row.event for row in answer.rows] == ["authenticated", "access_denied"]


def test_a_view_that_fails_hides_no_event(sqlite_url: str, clock: Clock) -> None:
    app, m9m = make_app(sqlite_url, clock)

    def broken() -> str:
        raise RuntimeError

    app.add_url_rule("/broken", "broken", require_auth(broken))
    with serving(app, m9m) as served:
        text, _ = token(served)
        answer = served.ask("GET", "/broken", bearer(text))
        assert answer.status == 500
        assert [row.event for row in answer.rows] == ["authenticated"]


def test_the_address_is_the_one_that_a_trusted_proxy_names(sqlite_url: str, clock: Clock) -> None:
    app, m9m = make_app(sqlite_url, clock, server={"trusted_proxies": ["127.0.0.1"]})
    with serving(app, m9m) as served:
        answer = served.ask("GET", "/x", {"X-Forwarded-For": "192.0.2.7"})
        assert [row.address for row in answer.rows] == ["192.0.2.7"]
