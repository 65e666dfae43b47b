"""Refresh tokens and revocation, over HTTP and real databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from flask_m9m.errors import Conflict, InvalidToken
from flask_m9m.testing import Clock
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
