"""Refresh tokens and revocation, over HTTP and real databases."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_m9m import M9M, require_auth
from flask_m9m.errors import Conflict, DatabaseUnavailable, InvalidToken
from flask_m9m.storage import engine as storage_engine
from flask_m9m.testing import Clock, make_settings
from tests.databases import settle
from tests.secured import Secured


def status(app: Flask, token: str) -> Any:
    answer = app.test_client().get("/x", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code


def test_a_revoked_token_is_refused_by_every_process(secured: Secured, clock: Clock) -> None:
    (app, m9m), (other, _) = secured(jwt={"secret": "x1" * 32}), secured(jwt={"secret": "x1" * 32})
    with app.app_context():
        token, kept = m9m.tokens.issue("ann"), m9m.tokens.issue("ann")
        assert status(app, token) == status(other, token) == 200
        m9m.tokens.revoke(token)
        assert status(app, token) == 401
        clock.advance(1.1)
        assert (status(other, token), status(other, kept)) == (401, 200)
        m9m.tokens.revoke_subject("ann")
        clock.advance(1.1)
        assert status(app, kept) == status(other, kept) == 401
        assert status(other, m9m.tokens.issue("ann")) == 200
        assert status(other, m9m.tokens.issue("bob")) == 200


def test_a_refresh_token_holds_once_and_reuse_ends_the_session(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured()
    with app.app_context():
        first = m9m.tokens.issue_pair("ann", scopes=["items:write"])
        assert status(app, first.refresh_token) == 401
        second = m9m.tokens.refresh(first.refresh_token)
        with pytest.raises(Conflict):
            m9m.tokens.refresh(first.refresh_token)
        assert status(app, second.access_token) == 200
        clock.advance(11.0)
        with pytest.raises(InvalidToken):
            m9m.tokens.refresh(first.refresh_token)
        assert status(app, second.access_token) == 401
        with pytest.raises(InvalidToken):
            m9m.tokens.refresh(second.refresh_token)
        with pytest.raises(InvalidToken):
            m9m.tokens.refresh(second.access_token)


def test_of_two_who_spend_a_token_at_once_one_gets_a_pair(secured: Secured) -> None:
    app, m9m = secured()
    with app.app_context():
        pair = m9m.tokens.issue_pair("ann")

    def spend(_: int) -> str:
        with app.app_context():
            try:
                return m9m.tokens.refresh(pair.refresh_token).access_token
            except Conflict:
                return ""

    with ThreadPoolExecutor(2) as pool:
        won = [one for one in pool.map(spend, range(2)) if one]
    assert len(won) == 1
    assert status(app, won[0]) == 200


def test_a_session_ends_by_logout_and_by_age(secured: Secured, clock: Clock) -> None:
    app, m9m = secured(jwt={"refresh_expiration": "7d", "refresh_max_age": "10d"})
    with app.app_context():
        pair = m9m.tokens.issue_pair("ann")
        sid = m9m.tokens.verify(pair.access_token).claims["sid"]
        assert [m9m.tokens.revoke_session(one) for one in (sid, sid, "no")] == [True, False, False]
        assert status(app, pair.access_token) == 401
        pair = m9m.tokens.issue_pair("ann")
        clock.advance(6 * 86_400.0)
        pair = m9m.tokens.refresh(pair.refresh_token)
        clock.advance(5 * 86_400.0)
        with pytest.raises(InvalidToken):
            m9m.tokens.refresh(pair.refresh_token)


def test_an_access_token_is_refreshed_with_the_rights_of_the_moment(secured: Secured) -> None:
    app, m9m = secured()
    with app.app_context():
        m9m.users.create("ann", "correct horse", scopes=["a", "b"], roles=["editor"])
        pair = m9m.tokens.issue_pair("ann")
        assert m9m.tokens.verify(pair.access_token).scopes == {"a", "b"}
        m9m.users.update("ann", scopes=["a"], roles=[])
        found = m9m.tokens.verify(m9m.tokens.refresh(pair.refresh_token).access_token)
        assert (found.scopes, found.roles) == ({"a"}, set())
        assert not found.claims.get("fresh")


def test_a_sessions_token_is_not_accepted_where_its_database_is_gone(
    sqlite_url: str,
) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    issuing = application(sqlite_url)
    with issuing[0].app_context():
        pair, plain = issuing[1].tokens.issue_pair("ann"), issuing[1].tokens.issue("ann")
    issuing[0].extensions["m9m"].database.close()
    for name in os.listdir(path.parent):
        (path.parent / name).unlink()

    app, m9m = application(sqlite_url)  # as after a restart, before the volume is mounted
    assert status(app, pair.access_token) == 503
    assert status(app, plain) == 200  # nothing tells this from a first start
    with app.app_context(), pytest.raises(DatabaseUnavailable):
        m9m.tokens.refresh(pair.refresh_token)
    assert not path.exists()

    path.parent.rmdir()
    app, m9m = application(sqlite_url)
    assert status(app, pair.access_token) == status(app, plain) == 503
    assert not path.parent.exists()


def application(url: str) -> tuple[Flask, M9M]:
    """Make an app that has not touched its database yet."""
    app = Flask("app")
    settings = {"database": {"url": url}, "security": {"jwt": {"secret": "x1" * 32}}}
    m9m = M9M(app, settings=make_settings(settings))
    app.add_url_rule("/x", view_func=require_auth(lambda: "x"))
    return app, m9m


def test_a_refresh_does_not_wait_for_a_server_that_stalls(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, m9m = application(postgres_url)
    database = app.extensions["m9m"].database
    database.upgrade()
    with app.app_context():
        pair = m9m.tokens.issue_pair("ann")
        stalled = ("BEGIN", "SELECT pg_sleep(6)")  # no timeout of the server ends it
        with monkeypatch.context() as patch:
            patch.setitem(storage_engine._BEGIN, "postgresql", stalled)
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailable, match="within 2 seconds"):
                m9m.tokens.refresh(pair.refresh_token)
            assert time.monotonic() - began < 5.0
        settle()
        assert m9m.tokens.refresh(pair.refresh_token).subject == "ann"  # it was not spent
    database.close()
