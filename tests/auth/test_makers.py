"""An old password begins no session, and what was revoked makes nothing that lasts."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flask_m9m import M9M
from flask_m9m.errors import Conflict, DatabaseUnavailable, InvalidApiKey, InvalidToken
from flask_m9m.testing import Clock, client_as
from tests.secured import Secured

OLD, NEW = "correct horse", "battery staple"
ADDRESS = {"REMOTE_ADDR": "192.0.2.1"}


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


def with_user(m9m: M9M, app: Flask) -> None:
    with app.app_context():
        m9m.users.create("ann", OLD, scopes="read m9m:manage")


def login(app: Flask, password: str) -> int:
    sent = {"username": "ann", "password": password}
    path = f"{app.extensions['m9m'].loaded.settings.api.prefix}/auth/login"
    return app.test_client().post(path, json=sent, environ_overrides=ADDRESS).status_code


def basic(app: Flask, password: str) -> int:
    return app.test_client().get("/x", auth=("ann", password)).status_code


def make_key(app: Flask, **headers: str) -> TestResponse:
    path = f"{app.extensions['m9m'].loaded.settings.api.prefix}/api-keys"
    return app.test_client().post(path, json={"name": "made"}, headers=headers)


def twins(secured: Secured, **security: Any) -> tuple[Flask, M9M, Flask, M9M]:
    security["jwt"] = {"secret": secrets.token_urlsafe(48)}
    one, other = (secured(api=True, **security) for _ in range(2))
    with_user(one[1], one[0])
    return *one, *other


def test_a_login_with_the_old_password_fails_at_once_in_every_process(
    secured: Secured,
) -> None:
    app, m9m, other, _ = twins(secured, basic_auth={"enabled": True})
    assert (login(other, OLD), basic(other, OLD)) == (200, 200)
    with app.app_context():
        m9m.users.set_password("ann", NEW)
    assert login(other, OLD) == 401
    assert login(other, NEW) == 200


def test_a_login_that_races_a_new_password_begins_no_session(
    secured: Secured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, m9m, other, _ = twins(secured)
    tokens = other.extensions["m9m"].identities.tokens
    begin = tokens.issue_pair

    def late(*args: Any, **options: Any) -> Any:
        with app.app_context():
            m9m.users.set_password("ann", NEW)
        return begin(*args, **options)

    monkeypatch.setattr(tokens, "issue_pair", late)
    assert login(other, OLD) == 401


def test_an_apps_own_verifier_is_asked_again_after_a_revocation(
    secured: Secured,
    clock: Clock,
) -> None:
    app, m9m = secured(api=True, basic_auth={"enabled": True})
    passwords = {"ann": OLD}
    m9m.password_verifier(lambda name, password: passwords.get(name) == password)
    assert basic(app, OLD) == 200
    passwords["ann"] = NEW
    with app.app_context():
        m9m.tokens.revoke_subject("ann")
    clock.advance(2)
    assert (basic(app, OLD), login(app, OLD)) == (401, 401)


@pytest.mark.parametrize("error", [DatabaseUnavailable("down"), RuntimeError("a bug")])
def test_the_configured_user_is_locked_out_while_the_verifier_fails(
    secured: Secured,
    error: Exception,
) -> None:
    configured = {"enabled": True, "username": "root", "password": "right password"}
    app, m9m = secured(basic_auth=configured, lockout={"attempts": 3, "per": "1m"})

    @m9m.password_verifier
    def verify(name: str, password: str) -> bool:
        raise error

    client = app.test_client()
    codes = [client.get("/x", auth=("root", f"guess {n}")).status_code for n in range(5)]
    assert codes == [401, 401, 401, 429, 429]


def test_making_a_key_needs_a_fresh_token(secured: Secured) -> None:
    app, m9m = secured(api=True, basic_auth={"enabled": True})
    with_user(m9m, app)
    with app.app_context():
        stale, fresh = (m9m.tokens.issue("ann", fresh=fresh) for fresh in (False, True))
    answer = make_key(app, Authorization=f"Bearer {stale}")
    assert (answer.status_code, answer.get_json()["code"]) == (401, "FRESH_TOKEN_REQUIRED")
    assert make_key(app, Authorization=f"Bearer {fresh}").status_code == 201
    assert client_as(app, "ann").get("/x").status_code == 200


@pytest.mark.parametrize(
    "revoke",
    [
        lambda m9m, token, key: m9m.tokens.revoke_subject("ann"),
        lambda m9m, token, key: m9m.users.set_password("ann", NEW),
        lambda m9m, token, key: m9m.tokens.revoke(token),
        lambda m9m, token, key: m9m.users.disable("ann"),
    ],
)
def test_a_token_that_another_process_revoked_makes_no_key(
    secured: Secured,
    revoke: Callable[[M9M, str, str], object],
) -> None:
    app, m9m, other, others = twins(secured)
    with app.app_context():
        token = m9m.tokens.issue("ann", fresh=True)
    seen = other.test_client().get("/x", headers={"Authorization": f"Bearer {token}"})
    assert seen.status_code == 200
    with app.app_context():
        revoke(m9m, token, "")
    answer = make_key(other, Authorization=f"Bearer {token}")
    assert answer.status_code in (400, 401)
    with other.app_context():
        assert others.api_keys.list() == []


def test_a_key_that_another_process_revoked_makes_no_key(secured: Secured) -> None:
    app, m9m, other, others = twins(secured)
    with app.app_context():
        key, text = m9m.api_keys.create("maker", "ann", "m9m:manage")
    assert other.test_client().get("/x", headers={"X-API-Key": text}).status_code == 200
    with app.app_context():
        m9m.api_keys.revoke(key.id)
    assert make_key(other, **{"X-API-Key": text}).status_code == 401
    with other.app_context():
        assert [key.name for key in others.api_keys.list()] == ["maker"]


def test_a_key_is_revoked_with_the_key_that_made_it_also_after_a_rotation(
    secured: Secured,
    clock: Clock,
) -> None:
    app, m9m = secured(api=True)
    with_user(m9m, app)
    with app.app_context():
        key, text = m9m.api_keys.create("maker", "ann", "m9m:manage")
        made = make_key(app, **{"X-API-Key": text}).get_json()["key"]
        following, _ = m9m.api_keys.rotate(key.id)
    client = app.test_client()
    assert client.get("/x", headers={"X-API-Key": made}).status_code == 200
    assert make_key(app, **{"X-API-Key": text}).status_code == 409  # replaced, in its grace
    with app.app_context():
        m9m.api_keys.revoke(following.id)
    clock.advance(2)
    assert client.get("/x", headers={"X-API-Key": made}).status_code == 401


def test_a_key_that_is_replaced_at_once_ends_with_the_keys_that_it_made(
    secured: Secured,
    clock: Clock,
) -> None:
    app, m9m = secured(api=True)
    with_user(m9m, app)
    with app.app_context():
        key, text = m9m.api_keys.create("maker", "ann", "m9m:manage")
        made = make_key(app, **{"X-API-Key": text}).get_json()["key"]
        _, following = m9m.api_keys.rotate(key.id, grace=0)
    clock.advance(2)
    client = app.test_client()
    keys = text, made, following
    codes = [client.get("/x", headers={"X-API-Key": text}).status_code for text in keys]
    assert codes == [401, 401, 200]


def test_a_subject_is_revoked_with_its_keys_where_that_is_asked_for(
    secured: Secured,
    clock: Clock,
) -> None:
    app, m9m = secured()
    with app.app_context():
        _, text = m9m.api_keys.create("kept", "ann")
        _, other = m9m.api_keys.create("other", "bob")
        m9m.tokens.revoke_subject("ann")
    client = app.test_client()
    clock.advance(2)
    assert client.get("/x", headers={"X-API-Key": text}).status_code == 200
    with app.app_context():
        m9m.tokens.revoke_subject("ann", keys=True)
    clock.advance(2)
    assert client.get("/x", headers={"X-API-Key": text}).status_code == 401
    assert client.get("/x", headers={"X-API-Key": other}).status_code == 200


def test_an_owner_has_no_more_keys_than_allowed(secured: Secured) -> None:
    app, m9m = secured()
    with app.app_context():
        first, _ = m9m.api_keys.create("one", "ann", most=2)
        m9m.api_keys.create("two", "ann", most=2)
        with pytest.raises(Conflict, match="2 API keys"):
            m9m.api_keys.create("three", "ann", most=2)
        m9m.api_keys.create("other", "bob", most=2)
        m9m.api_keys.revoke(first.id)
        m9m.api_keys.create("three", "ann", most=2)


def test_a_session_begins_only_under_the_version_that_was_read(secured: Secured) -> None:
    app, m9m = secured()
    with app.app_context():
        version = m9m.tokens.version_of("ann")
        m9m.tokens.issue_pair("ann", version=version)
        m9m.tokens.revoke_subject("ann")
        with pytest.raises(ValueError, match="revoked during the login"):
            m9m.tokens.issue_pair("ann", version=version)
        m9m.tokens.issue_pair("ann", version=m9m.tokens.version_of("ann"))


def test_a_presented_credential_is_looked_up_where_the_key_is_stored(
    secured: Secured,
) -> None:
    app, m9m = secured()
    with app.app_context():
        token = m9m.tokens.verify(m9m.tokens.issue("ann"))
        key, _ = m9m.api_keys.create("maker", "ann")
        m9m.tokens.revoke_subject("ann", keys=True)
        with pytest.raises(InvalidToken):
            m9m.api_keys.create("made", "ann", presented=token)
        asking = type(token)("ann", "api_key", credential_id=key.id, claims={"family": key.family})
        with pytest.raises(InvalidApiKey):
            m9m.api_keys.create("made", "ann", presented=asking)


@pytest.mark.parametrize("way", ["the first key", "the subject with its keys"])
def test_a_long_chain_of_keys_that_made_each_other_is_revoked_whole(
    secured: Secured, way: str
) -> None:
    app, m9m = secured(api=True)
    with app.app_context():
        first, _ = m9m.api_keys.create("first", "ann")
        chain, length = first, sys.getrecursionlimit() + 100
        with app.extensions["m9m"].database.write() as transaction:
            for number in range(length):
                chain = replace(chain, id=str(number), made_by=chain.id)
                transaction.identities.add_key(chain, secrets.token_bytes(32))
        if way == "the first key":
            m9m.api_keys.revoke(first.id)
        else:
            m9m.tokens.revoke_subject("ann", keys=True)
        keys = m9m.api_keys.list("ann")
    assert len(keys) == length + 1
    assert all(key.revoked_at is not None for key in keys)
