"""Attacks on tokens, sessions and users that have to fail, over real databases."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from flask_m9m import M9M
from flask_m9m.auth.jwt.jws import sign
from flask_m9m.auth.jwt.signing_keys import SigningKey
from flask_m9m.auth.passwords import PasswordHasher
from flask_m9m.auth.sessions import TokenPair
from flask_m9m.auth.tokens import Tokens
from flask_m9m.errors import Conflict, InvalidToken
from flask_m9m.storage.identity_rows import IdentityRows
from flask_m9m.testing import Clock
from tests.secured import Secured

PASSWORD = "correct horse"
OTHER = "battery staple"
SECRET, NEXT = "x1" * 32, "y2" * 32
BASIC = {"enabled": True}


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


def get(app: Flask, authorization: str) -> int:
    answer = app.test_client().get("/x", headers={"Authorization": authorization})
    return answer.status_code


def status(app: Flask, token: str) -> int:
    return get(app, f"Bearer {token}")


def sign_in(app: Flask, password: str) -> int:
    return get(app, f"Basic {b64encode(f'ann:{password}'.encode()).decode()}")


def forged(clock: Clock, typ: str = "at+jwt", secret: str = SECRET, **claims: Any) -> str:
    """Return a token that says what only a holder of the secret can have it say."""
    claims = {"sub": "ann", "jti": "j", "exp": int(clock()) + 600, **claims}
    return sign(claims, SigningKey(secret.encode()), typ)


def spend(m9m: M9M, app: Flask, token: str) -> TokenPair | type[Exception]:
    with app.app_context():
        try:
            return m9m.tokens.refresh(token)
        except (Conflict, InvalidToken) as error:
            return type(error)


def once(monkeypatch: pytest.MonkeyPatch, of: type, name: str, then: Callable[[], object]) -> None:
    """Have something happen the moment a method has its answer, the first time."""
    method = getattr(of, name)

    def interrupted(self: Any, *args: Any) -> Any:
        answer = method(self, *args)
        monkeypatch.setattr(of, name, method)
        then()
        return answer

    monkeypatch.setattr(of, name, interrupted)


@pytest.mark.parametrize("query", ["revocations", "revocation"])
def test_what_was_read_before_a_revocation_is_not_remembered_after_it(
    secured: Secured, clock: Clock, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    if query == "revocation":  # one by one, where there are more than are read at once
        monkeypatch.setattr("flask_m9m.auth.revocations._CAPACITY", 2)
    (app, m9m), (other, _) = secured(jwt={"secret": SECRET}), secured(jwt={"secret": SECRET})
    with app.app_context():
        token = m9m.tokens.issue("ann")
        for jti in ("one", "two", "three"):
            m9m.tokens.revoke(jti)

        def revoke() -> None:
            with app.app_context():
                m9m.tokens.revoke_subject("ann")
            clock.advance(1.1)
            other.extensions["m9m"].identities.tokens._feed.catch_up()

        once(monkeypatch, IdentityRows, query, revoke)
        status(other, token)
    assert status(other, token) == status(app, token) == 401


def test_a_password_changed_while_it_is_verified_is_not_remembered(
    secured: Secured, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app, m9m), (other, _) = secured(basic_auth=BASIC), secured(basic_auth=BASIC)
    with app.app_context():
        m9m.users.create("ann", PASSWORD)

        def change() -> None:
            with app.app_context():
                m9m.users.set_password("ann", OTHER)
            clock.advance(1.1)
            other.extensions["m9m"].identities.tokens._feed.catch_up()

        once(monkeypatch, PasswordHasher, "verify", change)
        sign_in(other, PASSWORD)
    assert (sign_in(other, PASSWORD), sign_in(other, OTHER)) == (401, 200)


def test_a_rehash_never_puts_back_the_password_of_before(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, m9m = secured()
    with app.app_context():
        m9m.users.create("ann", PASSWORD)
        monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:2048:8:1")
        m9m.users.verify_password("ann", "no")  # so that the hash of nobody is there
        once(monkeypatch, PasswordHasher, "hash", lambda: m9m.users.set_password("ann", OTHER))
        m9m.users.verify_password("ann", PASSWORD)
        assert m9m.users.verify_password("ann", PASSWORD) is None
        assert m9m.users.verify_password("ann", OTHER)


def test_a_token_that_is_issued_while_its_subject_is_revoked_is_revoked(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, m9m = secured()
    with app.app_context():
        once(monkeypatch, Tokens, "_version_for", lambda: m9m.tokens.revoke_subject("ann"))
        assert status(app, m9m.tokens.issue("ann")) == 401
        assert status(app, m9m.tokens.issue("ann")) == 200


def test_of_processes_that_spend_a_token_at_once_one_gets_a_pair(secured: Secured) -> None:
    apps = [secured(jwt={"secret": SECRET}) for _ in range(2)]
    app, m9m = apps[0]
    with app.app_context():
        token = m9m.tokens.issue_pair("ann").refresh_token
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: spend(apps[n % 2][1], apps[n % 2][0], token), range(8)))
    pairs = [one for one in found if isinstance(one, TokenPair)]
    assert (len(pairs), found.count(Conflict)) == (1, 7)
    assert status(app, pairs[0].access_token) == 200
    assert isinstance(spend(m9m, app, pairs[0].refresh_token), TokenPair)


def test_a_token_from_two_rotations_ago_ends_the_session_everywhere(
    secured: Secured, clock: Clock
) -> None:
    (app, m9m), (other, theirs) = [secured(jwt={"secret": SECRET}) for _ in range(2)]
    with app.app_context():
        first = m9m.tokens.issue_pair("ann")
        second = m9m.tokens.refresh(first.refresh_token)
        third = m9m.tokens.refresh(second.refresh_token)
        assert status(other, third.access_token) == 200
    assert spend(theirs, other, first.refresh_token) is InvalidToken
    clock.advance(1.1)
    for pair in (first, second, third):
        assert status(app, pair.access_token) == status(other, pair.access_token) == 401
        assert spend(m9m, app, pair.refresh_token) is InvalidToken


@pytest.mark.parametrize("act", ["disable", "set_password", "revoke_subject"])
def test_no_session_outlives_what_ended_it(secured: Secured, act: str) -> None:
    app, m9m = secured()
    with app.app_context():
        m9m.users.create("ann", PASSWORD)
        pair = m9m.tokens.issue_pair("ann")
        if act == "set_password":
            m9m.users.set_password("ann", OTHER)
        else:
            getattr(m9m.users if act == "disable" else m9m.tokens, act)("ann")
        m9m.users.enable("ann")
        assert spend(m9m, app, pair.refresh_token) is InvalidToken
        assert status(app, pair.access_token) == 401
        assert status(app, m9m.tokens.issue_pair("ann").access_token) == 200


def test_refresh_tokens_pass_a_change_of_the_secret_while_the_old_one_is_listed(
    secured: Secured,
) -> None:
    app, m9m = secured(jwt={"secret": SECRET})
    with app.app_context():
        pair = m9m.tokens.issue_pair("ann")
    rotated, ours = secured(jwt={"secret": NEXT, "previous_secrets": [SECRET]})
    gone, none = secured(jwt={"secret": NEXT})
    assert spend(none, gone, pair.refresh_token) is InvalidToken
    following = spend(ours, rotated, pair.refresh_token)
    assert isinstance(following, TokenPair)
    assert status(gone, following.access_token) == 200
    assert (status(rotated, pair.access_token), status(gone, pair.access_token)) == (200, 401)
    assert isinstance(spend(none, gone, following.refresh_token), TokenPair)


def test_refresh_tokens_are_ours_typed_and_of_a_session(secured: Secured, clock: Clock) -> None:
    app, m9m = secured(jwt={"secret": SECRET, "issuer": "us", "audience": "api"})
    with app.app_context():
        pair = m9m.tokens.issue_pair("ann")
        ids = {"sid": m9m.tokens.verify(pair.access_token).claims["sid"]}
        with app.extensions["m9m"].database.write() as transaction:
            ids["jti"] = transaction.identities.session(ids["sid"]).current
    ours = {"iss": "us", "aud": "api", **ids}
    for wrong in ({"iss": "you"}, {"aud": "web"}, {"jti": 1}, {"sid": 1}, {"sid": [ids["sid"]]}):
        token = forged(clock, "refresh+jwt", **{**ours, **wrong})
        assert spend(m9m, app, token) is InvalidToken
    for typ in ("JWT", "at+jwt", "Refresh+JWT", "application/refresh+jwt"):
        assert spend(m9m, app, forged(clock, typ, **ours)) is InvalidToken
    for token in (pair.refresh_token, forged(clock, "refresh+jwt", **ours)):
        assert status(app, token) == 401
    assert spend(m9m, app, forged(clock, "refresh+jwt", NEXT, **ours)) is InvalidToken
    assert isinstance(spend(m9m, app, pair.refresh_token), TokenPair)


def test_a_strange_version_never_outlives_a_revocation(secured: Secured, clock: Clock) -> None:
    app, m9m = secured(jwt={"secret": SECRET})
    with app.app_context():
        m9m.tokens.revoke_subject("ann")
        for ver in (True, 1.0, "1", None, [1], -1, -(2**80)):
            assert status(app, forged(clock, ver=ver)) == 401
        with pytest.raises(ValueError, match="ver"):
            m9m.tokens.issue("ann", claims={"ver": 1})


def test_names_of_tokens_sessions_and_subjects_never_meet(secured: Secured, clock: Clock) -> None:
    app, m9m = secured(jwt={"secret": SECRET})
    long = "n" * 5_000
    odd = ["sub:a", "jti:a", "#a", ":", "%", "'; --", "\0", "a\n", "\u200b", "\U0001f511", long]
    with app.app_context():
        m9m.tokens.revoke("unrelated")
        for name in odd:
            tokens = [forged(clock, sub=name), forged(clock, sid=name), forged(clock, jti=name)]
            assert [status(app, one) for one in tokens] == [200, 200, 200]
            m9m.tokens.revoke(name)
            assert [status(app, one) for one in tokens] == [200, 200, 401]
            m9m.tokens.revoke_subject(name)
            assert [status(app, one) for one in tokens] == [401, 200, 401]


def test_more_revocations_than_are_remembered_all_hold(
    secured: Secured, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_m9m.auth.revocations._CAPACITY", 6)
    (app, m9m), (other, _) = [secured(jwt={"secret": SECRET}) for _ in range(2)]
    with app.app_context():
        tokens = [m9m.tokens.issue("ann") for _ in range(10)]
        for count, token in enumerate(tokens, 1):
            m9m.tokens.revoke(token)
            clock.advance(1.1)
            for one in (app, other):
                expected = [401] * count + [200] * (len(tokens) - count)
                assert [status(one, each) for each in tokens] == expected
                known = one.extensions["m9m"].identities.tokens._revocations
                assert max(len(known._known), len(known._changed) - 1) <= 6


def test_a_clock_that_steps_back_brings_no_token_and_no_session_back(
    secured: Secured, clock: Clock
) -> None:
    app, m9m = secured(jwt={"leeway": "60s"})
    with app.app_context():
        token, pair = m9m.tokens.issue("ann"), m9m.tokens.issue_pair("ann")
        following = m9m.tokens.refresh(pair.refresh_token)
        m9m.tokens.revoke(token)
        clock.advance(-50.0)
        assert status(app, token) == 401
        m9m.tokens.revoke_session(m9m.tokens.verify(following.access_token).claims["sid"])
        assert status(app, following.access_token) == 401
        clock.advance(100_000.0)
        for number in range(64):  # old revocations are forgotten by and by
            m9m.tokens.revoke(f"other{number}")
        app.extensions["m9m"].identities.tokens._revocations.clear()
        assert status(app, token) == status(app, following.access_token) == 401
