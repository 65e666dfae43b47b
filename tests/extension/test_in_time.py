"""What was revoked, or whose database stalls: changes that a request asks for are refused in time.

The other process of these tests has not read the revocation yet.
"""

from __future__ import annotations

import os
import signal
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_m9m import M9M, Identity
from flask_m9m.errors import InvalidCredentials, InvalidToken
from flask_m9m.testing import Clock, make_settings
from tests.databases import settle

PASSWORD = "correct horse"
URL = "/api/v1"
FIELDS = {"name": "one", "type": "apiKey", "data": {"apiKey": "x"}}

Secure = Callable[[], tuple[Flask, M9M]]


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


@pytest.fixture
def secure(database_url: str, clock: Clock) -> Iterator[Secure]:
    """Return a function that makes an app as another process would, on one database."""
    apps = []

    def make() -> tuple[Flask, M9M]:
        app = Flask("app")
        settings = {
            "database": {"url": database_url},
            "api": {"enabled": True},
            "security": {"basic_auth": {"enabled": True}, "jwt": {"secret": "x1" * 32}},
            "credentials": {"encryption_key": "A" * 43 + "="},
        }
        m9m = M9M(app, settings=make_settings(settings), clock=clock)
        app.extensions["m9m"].database.upgrade()
        apps.append(app)
        return app, m9m

    yield make
    settle()
    for app in apps:
        app.extensions["m9m"].database.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'ann:{password}'.encode()).decode()}"}


def log_in(app: Flask, name: str) -> int:
    sent = {"username": name, "password": PASSWORD}
    return app.test_client().post(f"{URL}/auth/login", json=sent).status_code


# Revoked while the password is verified


@pytest.mark.parametrize("who", ["ann", "user-7"])
def test_a_subject_that_is_revoked_while_its_password_is_verified_gets_no_session(
    secure: Secure, who: str
) -> None:
    (app, m9m), (_, other) = secure(), secure()
    acts: list[Callable[[], object]] = [lambda: other.tokens.revoke_subject(who), lambda: None]

    @m9m.password_verifier
    def verify(name: str, password: str) -> Identity:
        acts.pop(0)()
        return Identity(who, "basic")

    with app.app_context():
        assert log_in(app, "ann") == 401
        assert log_in(app, "ann") == 200


def test_the_revocation_of_another_subject_does_not_matter(secure: Secure) -> None:
    app, m9m = secure()

    @m9m.password_verifier
    def verify(name: str, password: str) -> Identity:
        m9m.tokens.revoke_subject("bob")
        return Identity("user-7", "basic")

    with app.app_context():
        m9m.tokens.revoke_subject("user-7")
        assert log_in(app, "ann") == 200


# Revoked before the change


def test_a_revoked_token_changes_no_credential_in_a_process_that_does_not_know(
    secure: Secure,
) -> None:
    (app, m9m), (unaware, _) = secure(), secure()
    with app.app_context():
        headers = bearer(m9m.tokens.issue("ann"))
        made = m9m.credentials.create("one", "apiKey", {"apiKey": "x"}, owner="ann")
    client, path = unaware.test_client(), f"{URL}/credentials"
    assert client.get(path, headers=headers).status_code == 200
    with app.app_context():
        m9m.tokens.revoke_subject("ann")
    assert client.post(path, headers=headers, json=FIELDS).status_code == 401
    path = f"{path}/{made.id}"
    assert client.put(path, headers=headers, json={"name": "two"}).status_code == 401
    assert client.delete(path, headers=headers).status_code == 401
    with app.app_context():
        [left] = m9m.credentials.list()
        assert left.name == "one"


def test_a_password_that_is_verified_now_is_not_judged_by_old_revocations(secure: Secure) -> None:
    app, m9m = secure()
    client = app.test_client()
    with app.app_context():
        m9m.users.create("ann", PASSWORD)
        m9m.tokens.revoke_subject("ann")
        made = client.post(f"{URL}/credentials", headers=basic(), json=FIELDS)
        assert made.status_code == 201
        assert (
            client.delete(f"{URL}/credentials/{made.json['id']}", headers=basic()).status_code
            == 204
        )
        for scheme in ("basic", "badge", "trusted"):
            m9m.api_keys.create("ci", "ann", presented=Identity("ann", scheme))
        m9m.users.disable("ann")
        with pytest.raises(InvalidCredentials):
            m9m.api_keys.create("ci", "ann", presented=Identity("ann", "basic"))
        with pytest.raises(InvalidToken):
            m9m.api_keys.create("ci", "ann", presented=Identity("ann", "bearer"))


def test_a_key_that_is_revoked_with_its_maker_names_it_in_the_trail(
    secure: Secure, caplog: pytest.LogCaptureFixture
) -> None:
    app, m9m = secure()
    with app.app_context():
        maker, _ = m9m.api_keys.create("maker", "ann")
        presented = Identity(
            "ann", "api_key", credential_id=maker.id, claims={"family": maker.family}
        )
        made, _ = m9m.api_keys.create("made", "ann", presented=presented)
        caplog.clear()
        with caplog.at_level("INFO", "flask_m9m.audit"):
            m9m.api_keys.revoke(maker.id)
    lines = [line for line in caplog.messages if "api_key_revoked" in line]
    assert len(lines) == 2
    assert f'"made_by":"{maker.id}"' in lines[1]
    assert made.id in lines[1]


def test_revoking_a_subject_that_can_own_no_key_revokes_its_tokens(secure: Secure) -> None:
    app, m9m = secure()
    with app.app_context():
        m9m.tokens.revoke_subject("x" * 256, keys=True)
        m9m.tokens.revoke_subject("issuer|a\tb", keys=True)


def test_only_valid_keys_count_for_the_quota(secure: Secure, clock: Clock) -> None:
    app, m9m = secure()
    with app.app_context():
        revoked, _ = m9m.api_keys.create("a", "ann", most=2)
        m9m.api_keys.create("b", "ann", expires_at="1h", most=2)
        m9m.api_keys.revoke(revoked.id)
        clock.advance(3_601.0)
        for name in ("c", "d"):
            m9m.api_keys.create(name, "ann", most=2)
        m9m.api_keys.create("e", "bob", most=1)
        with pytest.raises(Exception, match="the most allowed"):
            m9m.api_keys.create("f", "ann", most=2)


# A database that stalls


@contextmanager
def stopped(url: str) -> Iterator[None]:
    """Stop every process of a PostgreSQL server that serves this database, and the server."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        pids = [row[0] for row in connection.execute(sa.text(query))]
        directory = connection.execute(sa.text("SHOW data_directory")).scalar_one()
    with open(f"{directory}/postmaster.pid") as file:
        pids.insert(0, int(file.readline()))
    running = []
    try:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                continue
            running.append(pid)
        yield
    finally:
        for pid in running:
            os.kill(pid, signal.SIGCONT)
        engine.dispose()


@pytest.mark.skipif(
    "M9M_TEST_POSTGRES_URL" in os.environ, reason="the server of the variable may be remote"
)
def test_while_the_database_stalls_requests_are_refused_and_not_kept(
    postgres_url: str, clock: Clock
) -> None:
    app = Flask("app")
    settings = {
        "database": {"url": postgres_url},
        "api": {"enabled": True},
        "security": {"basic_auth": {"enabled": True}, "lockout": {"enabled": False}},
        "credentials": {"encryption_key": "A" * 43 + "="},
    }
    m9m = M9M(app, settings=make_settings(settings), clock=clock)
    database = app.extensions["m9m"].database
    database.upgrade()
    client = app.test_client()
    with app.app_context():
        m9m.users.create("ann", PASSWORD)
        key, _ = m9m.api_keys.create("ci", "ann")
        pair = m9m.tokens.issue_pair("ann")
        made = m9m.credentials.create("one", "apiKey", {"apiKey": "x"}, owner="ann")
    headers = bearer(pair.access_token)
    sent = {"username": "ann", "password": PASSWORD}
    requests: dict[str, tuple[str, str, Any]] = {
        "login": ("POST", f"{URL}/auth/login", sent),
        "refresh": ("POST", f"{URL}/auth/refresh", {"refreshToken": pair.refresh_token}),
        "logout": ("POST", f"{URL}/auth/logout", None),
        "new key": ("POST", f"{URL}/api-keys", {"name": "a"}),
        "keys": ("GET", f"{URL}/api-keys", None),
        "old key": ("DELETE", f"{URL}/api-keys/{key.id}", None),
        "new": ("POST", f"{URL}/credentials", FIELDS),
        "list": ("GET", f"{URL}/credentials", None),
        "change": ("PUT", f"{URL}/credentials/{made.id}", {"name": "two"}),
        "delete": ("DELETE", f"{URL}/credentials/{made.id}", None),
    }

    def ask(name: str) -> int:
        method, path, body = requests[name]
        sent = {} if name in ("login", "refresh") else headers
        return app.test_client().open(path, method=method, json=body, headers=sent).status_code

    def change(act: Callable[[], object]) -> str:
        with app.app_context():
            try:
                act()
            except Exception as error:
                return type(error).__name__
        return "done"

    assert ask("keys") == ask("list") == 200
    changes = [
        lambda: m9m.tokens.revoke_subject("bob"),
        lambda: m9m.users.set_password("ann", "another password"),
        lambda: m9m.users.disable("ann"),
        lambda: m9m.users.create("eve", PASSWORD),
        lambda: m9m.api_keys.rotate(key.id),
        lambda: m9m.tokens.revoke(pair.access_token),
    ]
    with stopped(postgres_url), ThreadPoolExecutor(len(requests) + len(changes)) as pool:
        answers = {name: pool.submit(ask, name) for name in requests}
        results = [pool.submit(change, act) for act in changes]
        # Each waits for two seconds, many of them in a row on a busy machine.
        assert {name: answer.result(60) for name, answer in answers.items()} == dict.fromkeys(
            requests, 503
        )
        assert [result.result(60) for result in results] == ["DatabaseUnavailable"] * len(changes)
    settle()
    clock.advance(60.0)  # the feed tries again
    with app.app_context():
        assert m9m.users.verify_password("ann", PASSWORD) is not None  # nothing was changed
        assert [info.name for info in m9m.credentials.list()] == ["one"]
        assert m9m.users.get("eve") is None
    assert client.get(f"{URL}/api-keys", headers=headers).status_code == 200
    database.close()
