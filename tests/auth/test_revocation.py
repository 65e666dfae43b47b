"""Revocation and sign-in where clocks, threads and backups are against them."""

from __future__ import annotations

import threading
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_m9m import Identity
from flask_m9m.auth.jwt.jws import sign
from flask_m9m.auth.jwt.signing_keys import SigningKey
from flask_m9m.auth.users import Users
from flask_m9m.errors import DatabaseUnavailable, InvalidToken
from flask_m9m.storage import tables
from flask_m9m.testing import Clock
from tests.secured import Secured

PASSWORD, OTHER = "correct horse", "battery staple"
SECRET = "x1" * 32


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


def status(app: Flask, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return app.test_client().get("/x", headers=headers).status_code


def sign_in(app: Flask, name: str, password: str) -> int:
    sent = b64encode(f"{name}:{password}".encode()).decode()
    return app.test_client().get("/x", headers={"Authorization": f"Basic {sent}"}).status_code


def m9ms_token(clock: Clock, **claims: Any) -> str:
    """Return a token as m9m signs it: under the same secret, and without a `ver`."""
    now = int(clock())
    claims = {"userId": "ann", "iat": now, "exp": now + 600, **claims}
    return sign(claims, SigningKey(SECRET.encode()), "JWT")


def another_process(app: Flask) -> None:
    """Have an app forget what it knows, as one that starts now knows nothing."""
    app.extensions["m9m"].identities.tokens._revocations.clear()


def many_changes(m9m: Any) -> None:
    """Make enough of them for what is over to be deleted."""
    for number in range(64):
        m9m.tokens.revoke(f"x{number}")


class Interrupted(OrderedDict[str, int]):
    """Lets another thread go on right after this one found nothing."""

    def __init__(self, known: OrderedDict[str, int], go_on: Callable[[], None]) -> None:
        super().__init__(known)
        self._go_on: Callable[[], None] | None = go_on

    def get(self, name: str, default: Any = None) -> Any:
        found = super().get(name, default)
        if found is None and self._go_on and name.startswith("jti:"):
            go_on, self._go_on = self._go_on, None
            go_on()
        return found


def test_of_two_who_ask_for_a_name_at_once_both_learn_that_it_was_revoked(
    secured: Secured,
) -> None:
    app, m9m = secured()
    with app.app_context():
        token = m9m.tokens.issue("ann")
        m9m.tokens.revoke("x")
        assert status(app, token) == 200
        m9m.tokens.revoke(token)
    revocations, seen = m9m_revocations(app), []
    other = threading.Thread(target=lambda: seen.append(status(app, token)))

    def go_on() -> None:
        other.start()
        other.join(0.5)

    revocations._known = Interrupted(revocations._known, go_on)
    assert status(app, token) == 401
    other.join(10)
    assert seen == [401]


def m9m_revocations(app: Flask) -> Any:
    return app.extensions["m9m"].identities.tokens._revocations


def test_a_subject_that_was_revoked_before_a_restore_is_revoked_again(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured()
    with app.app_context():
        m9m.tokens.revoke_subject("ann")
        token = m9m.tokens.issue("ann")
        with app.extensions["m9m"].database._connected().begin() as connection:
            connection.execute(sa.delete(tables.revocations))  # a backup of before comes back
        clock.advance(2.0)
        assert status(app, token) == 200
        m9m.tokens.revoke_subject("ann")
        assert status(app, token) == 401
        assert status(app, m9m.tokens.issue("ann")) == 200


def test_m9ms_tokens_hold_again_when_they_are_clearly_newer_than_the_revocation(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured(jwt={"secret": SECRET})
    before, ahead = m9ms_token(clock), m9ms_token(clock, iat=int(clock()) + 4)
    with app.app_context():
        assert [status(app, one) for one in (before, ahead)] == [200, 200]
        m9m.tokens.revoke_subject("ann")
    assert [status(app, one) for one in (before, ahead)] == [401, 401]
    assert status(app, m9ms_token(clock, iat=0)) == 401
    clock.advance(66.0)
    assert [status(app, one) for one in (before, ahead)] == [401, 401]
    assert status(app, m9ms_token(clock)) == 200


def test_a_session_is_revoked_although_its_row_was_deleted(secured: Secured, clock: Clock) -> None:
    app, m9m = secured(jwt={"expiration": "2d"})
    with app.app_context():
        pair = m9m.tokens.issue_pair("ann")
        with app.extensions["m9m"].database._connected().begin() as connection:
            connection.execute(sa.delete(tables.sessions))
        m9m.tokens.revoke_session(m9m.tokens.verify(pair.access_token).claims["sid"])
        clock.advance(86_400.0)
        many_changes(m9m)
        another_process(app)
        assert status(app, pair.access_token) == 401


def test_a_revocation_outlives_what_it_revokes_by_the_leeway(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured(
        jwt={
            "expiration": "60s",
            "refresh_expiration": "600s",
            "refresh_max_age": "600s",
            "leeway": "60s",
        }
    )
    with app.app_context():
        pair = m9m.tokens.issue_pair("ann")
        clock.advance(599.0)
        pair = m9m.tokens.refresh(pair.refresh_token)
        m9m.tokens.revoke_session(m9m.tokens.verify(pair.access_token).claims["sid"])
        clock.advance(62.0)
        many_changes(m9m)
        another_process(app)
        assert status(app, pair.access_token) == 401


def test_a_token_until_the_end_of_time_can_be_revoked(secured: Secured, clock: Clock) -> None:
    app, m9m = secured(jwt={"secret": SECRET})
    token = m9ms_token(clock, exp=253_402_300_799, jti="j")
    with app.app_context():
        assert status(app, token) == 200
        m9m.tokens.revoke(token)
        assert status(app, token) == 401
        dotted = m9ms_token(clock, jti="a.b.c")
        m9m.tokens.revoke("a.b.c")
        assert status(app, dotted) == 401


@pytest.mark.parametrize("value", [None, 7, [], {}, b"x"])
def test_what_is_no_text_is_no_token(secured: Secured, value: Any) -> None:
    app, m9m = secured()
    with app.app_context():
        for act in (m9m.tokens.refresh, m9m.tokens.verify):
            with pytest.raises(InvalidToken):
                act(value)


# Signing in


def test_a_disabled_user_is_issued_no_token(secured: Secured) -> None:
    app, m9m = secured()
    with app.app_context():
        m9m.users.create("ann", PASSWORD)
        m9m.users.disable("ann")
        for issue in (m9m.tokens.issue, m9m.tokens.issue_pair):
            with pytest.raises(ValueError, match="disabled"):
                issue("ann")


@pytest.mark.parametrize("change", ["password", "disabled"])
def test_what_changes_while_a_password_is_verified_counts(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    app, m9m = secured()
    with app.app_context():
        m9m.users.create("ann", PASSWORD)
        find, found = Users._find, []

        def find_and_change(self: Users, name: str | None) -> Any:
            found.append(find(self, name))
            if len(found) == 1 and change == "password":
                m9m.users.set_password("ann", OTHER)
            elif len(found) == 1:
                m9m.users.disable("ann")
            return found[-1]

        monkeypatch.setattr(Users, "_find", find_and_change)
        assert m9m.users.verify_password("ann", PASSWORD) is None
        user = m9m.users.verify_password("ann", OTHER)
        assert (user is not None) is (change == "password")


def test_a_hash_that_cannot_be_renewed_keeps_nobody_out(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, m9m = secured(basic_auth={"enabled": True})
    with app.app_context():
        m9m.users.create("ann", PASSWORD)
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:2048:8:1")

    def read_only(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("attempt to write a readonly database")

    monkeypatch.setattr(app.extensions["m9m"].database, "write", read_only)
    assert sign_in(app, "ann", PASSWORD) == 200


def test_a_user_whom_the_app_knows_by_another_name_is_forgotten_too(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured(basic_auth={"enabled": True})

    @m9m.password_verifier
    def verify(name: str, password: str) -> Identity | None:
        user = m9m.users.verify_password(name.lower(), password)
        return None if user is None else Identity(user.username, "basic")

    with app.app_context():
        m9m.users.create("ann", PASSWORD)
        assert sign_in(app, "ANN", PASSWORD) == 200
        m9m.users.disable("ann")
    assert sign_in(app, "ANN", PASSWORD) == 401


def test_sessions_that_ended_are_deleted_where_only_sessions_are_written(
    secured: Secured, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, m9m = secured()
    with app.app_context():
        m9m.tokens.issue_pair("ann")
        clock.advance(32 * 86_400.0)
        monkeypatch.setattr("secrets.randbelow", lambda _: 0)
        m9m.tokens.issue_pair("bob")
    with app.extensions["m9m"].database._connected().connect() as connection:
        assert connection.execute(sa.select(tables.sessions.c.subject)).all() == [("bob",)]


@pytest.mark.parametrize("odd", ["{} x", "Bearer {}", "{}\n{}"])
def test_what_is_neither_a_token_nor_a_jti_is_not_taken_for_one(secured: Secured, odd: str) -> None:
    app, m9m = secured()
    with app.app_context():
        token = m9m.tokens.issue("ann")
        with pytest.raises(InvalidToken):
            m9m.tokens.revoke(odd.replace("{}", token))
        m9m.tokens.revoke(f" {token}\n")
        with pytest.raises(InvalidToken):
            m9m.tokens.verify(token)
