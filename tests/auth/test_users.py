"""The users table, by HTTP Basic and by API keys, over real databases."""

from __future__ import annotations

from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from werkzeug.security import generate_password_hash

from flask_m9m import M9M
from flask_m9m.errors import Conflict, DatabaseUnavailable, InvalidToken, NotFound
from flask_m9m.testing import Clock, make_settings
from tests.secured import Secured

PASSWORD = "correct horse"
BASIC = {"enabled": True}


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


def sign_in(app: Flask, name: str, password: str, path: str = "/x") -> Any:
    credential = b64encode(f"{name}:{password}".encode()).decode()
    return app.test_client().get(path, headers={"Authorization": f"Basic {credential}"})


def make(app: Flask, m9m: M9M, name: str = "ann", **rights: Any) -> None:
    with app.app_context():
        m9m.users.create(name, PASSWORD, **rights)


def test_a_user_is_made_and_signs_in(secured: Secured) -> None:
    app, m9m = secured(basic_auth=BASIC)
    make(app, m9m, roles=["editor"], scopes=["items:write"])
    answer = sign_in(app, "ann", PASSWORD)
    assert answer.json["subject"] == "ann"
    assert answer.json["roles"] == ["editor"]
    assert sign_in(app, "ann", PASSWORD, "/write").status_code == 200
    for name, password in (("ann", "wrong"), ("bob", PASSWORD), ("Ann", PASSWORD)):
        refused = sign_in(app, name, password)
        assert (refused.status_code, refused.json["code"]) == (401, "INVALID_CREDENTIALS")
    with app.app_context():
        (user,) = m9m.users.list()
        assert PASSWORD not in repr(user)
        assert user.password_hash not in repr(user)


def test_a_new_password_holds_everywhere_and_revokes_tokens(secured: Secured, clock: Clock) -> None:
    (app, m9m), (other, _) = secured(basic_auth=BASIC), secured(basic_auth=BASIC)
    make(app, m9m)
    for one in (app, other):
        assert sign_in(one, "ann", PASSWORD).status_code == 200
    with app.app_context():
        token = m9m.tokens.issue("ann")
        pair = m9m.tokens.issue_pair("ann")
        m9m.users.set_password("ann", "battery staple")
    clock.advance(1.1)
    for one in (app, other):
        assert sign_in(one, "ann", PASSWORD).status_code == 401
        assert sign_in(one, "ann", "battery staple").status_code == 200
    for text in (token, pair.access_token):
        assert bearer(app, text).status_code == 401
    with app.app_context():
        assert bearer(app, m9m.tokens.issue("ann")).status_code == 200


def bearer(app: Flask, token: str) -> Any:
    return app.test_client().get("/x", headers={"Authorization": f"Bearer {token}"})


def test_a_disabled_user_is_kept_out_by_every_credential(secured: Secured, clock: Clock) -> None:
    (app, m9m), (other, _) = secured(basic_auth=BASIC), secured(basic_auth=BASIC)
    make(app, m9m)
    with app.app_context():
        key = m9m.api_keys.create("ci", "ann")[1]
        token = m9m.tokens.issue("ann")
    headers = [{"X-API-Key": key}, {"Authorization": f"Bearer {token}"}]

    def statuses(app: Flask) -> list[int]:
        answers = [app.test_client().get("/x", headers=one) for one in headers]
        return [one.status_code for one in (*answers, sign_in(app, "ann", PASSWORD))]

    assert statuses(app) == [200, 200, 200]
    assert sign_in(other, "ann", PASSWORD).status_code == 200
    with app.app_context():
        m9m.users.disable("ann")
        with pytest.raises(ValueError, match="disabled"):
            m9m.api_keys.create("more", "ann")
        with pytest.raises(ValueError, match="disabled"):
            m9m.tokens.issue_pair("ann")
    clock.advance(1.1)
    assert statuses(app) == [401, 401, 401]
    assert sign_in(other, "ann", PASSWORD).status_code == 401
    with app.app_context():
        m9m.users.enable("ann")
    assert statuses(app) == [200, 401, 200]


def test_a_key_never_has_more_rights_than_its_owner_has_now(secured: Secured, clock: Clock) -> None:
    (app, m9m), (other, _) = secured(), secured()
    make(app, m9m, roles=["editor"], scopes=["items:read", "items:write"])
    with app.app_context():
        _, key = m9m.api_keys.create("ci", "ann", scopes=["items:write"], roles=["editor"])
        with pytest.raises(ValueError, match="admin"):
            m9m.api_keys.create("more", "ann", roles=["admin"])
    ask = {"headers": {"X-API-Key": key}}
    assert other.test_client().get("/write", **ask).status_code == 200
    with app.app_context():
        m9m.users.update("ann", roles=[], scopes=["items:read"])
    clock.advance(1.1)
    for one in (app, other):
        assert one.test_client().get("/write", **ask).status_code == 403
        assert one.test_client().get("/x", **ask).json["roles"] == []


def test_a_hash_of_old_parameters_is_replaced_on_login(secured: Secured) -> None:
    app, m9m = secured(basic_auth=BASIC)
    make(app, m9m)
    old = generate_password_hash(PASSWORD, "scrypt:512:8:1")
    with app.extensions["m9m"].database.write() as transaction:
        transaction.identities.change_user("ann", password_hash=old)
    assert sign_in(app, "ann", "wrong").status_code == 401
    with app.app_context():
        assert m9m.users.list()[0].password_hash == old
        assert m9m.users.verify_password("ann", PASSWORD)
        assert m9m.users.list()[0].password_hash.startswith("scrypt:1024:8:1$")
        assert m9m.users.verify_password("ann", PASSWORD)


def test_an_unknown_name_costs_as_many_hashes_as_a_wrong_password(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, m9m = secured(basic_auth=BASIC)
    make(app, m9m)
    make(app, m9m, "gone")
    with app.app_context():
        m9m.users.disable("gone")
    hasher, hashed = app.extensions["m9m"].identities.users._hasher, []
    verify = hasher.verify
    monkeypatch.setattr(
        hasher, "verify", lambda known, password: hashed.append(known) or verify(known, password)
    )
    for name in ("ann", "nobody", "gone"):
        hashed.clear()
        assert sign_in(app, name, "wrong").status_code == 401
        assert len(hashed) == 1
        assert hashed[0].startswith("scrypt:1024:8:1$")


def test_names_and_passwords_are_the_same_in_either_form(secured: Secured) -> None:
    app, m9m = secured(basic_auth=BASIC)
    with app.app_context():
        m9m.users.create("jos\u0065\u0301", "pa\u0073\u0301sword")
    assert sign_in(app, "jos\u00e9", "pa\u015bsword").json["subject"] == "jos\u00e9"
    with app.app_context(), pytest.raises(Conflict):
        m9m.users.create("jos\u00e9", PASSWORD)


def test_long_passwords_are_never_cut(secured: Secured) -> None:
    app, m9m = secured(basic_auth=BASIC)
    with app.app_context():
        m9m.users.create("ann", "a" * 1000)
    assert sign_in(app, "ann", "a" * 999 + "b").status_code == 401
    assert sign_in(app, "ann", "a" * 72).status_code == 401
    assert sign_in(app, "ann", "a" * 1000).status_code == 200


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("", PASSWORD),
        ("a:b", PASSWORD),
        ("a\nb", PASSWORD),
        ("x" * 256, PASSWORD),
        (None, PASSWORD),
        ("ann", "short"),
        ("ann", "x" * 5000),
        ("ann", "correct\x00horse"),
        ("ann", "correct \ud800 horse"),
        ("ann", None),
    ],
)
def test_what_cannot_be_a_user_is_refused(secured: Secured, name: Any, password: Any) -> None:
    app, m9m = secured()
    with app.app_context():
        with pytest.raises(ValueError):
            m9m.users.create(name, password)
        assert m9m.users.list() == []


def test_a_taken_name_and_an_unknown_one_change_nothing(secured: Secured) -> None:
    app, m9m = secured()
    make(app, m9m, roles=["editor"])
    with app.app_context():
        before = m9m.users.list()
        with pytest.raises(Conflict):
            m9m.users.create("ann", "another one")
        for act in (m9m.users.disable, m9m.users.enable, m9m.users.update):
            with pytest.raises(NotFound):
                act("bob")
        with pytest.raises(NotFound):
            m9m.users.set_password("bob", PASSWORD)
        assert m9m.users.list() == before


def test_of_many_who_take_a_name_at_once_one_gets_it(secured: Secured) -> None:
    apps = [secured() for _ in range(3)]

    def take(number: int) -> bool:
        app, m9m = apps[number % 3]
        with app.app_context():
            try:
                m9m.users.create("ann", PASSWORD)
            except Conflict:
                return False
        return True

    with ThreadPoolExecutor(9) as pool:
        assert sum(pool.map(take, range(9))) == 1


def test_the_configured_user_needs_no_database(
    secured: Secured, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = generate_password_hash("ops secret", "scrypt:1024:8:1")
    app, m9m = secured(basic_auth={**BASIC, "username": "ops", "password_hash": hashed})
    make(app, m9m)
    assert sign_in(app, "ops", "ops secret").status_code == 200
    assert sign_in(app, "ann", PASSWORD).status_code == 200

    def away(query: Any) -> Any:
        raise DatabaseUnavailable("down")

    monkeypatch.setattr(app.extensions["m9m"].database, "read", away)
    clock.advance(40.0)
    assert sign_in(app, "ops", "ops secret").status_code == 200
    assert sign_in(app, "ann", PASSWORD).status_code == 503


def test_the_apps_own_verifier_replaces_the_table(secured: Secured) -> None:
    app, m9m = secured(basic_auth=BASIC)
    make(app, m9m)
    m9m.password_verifier(lambda name, password: name == "bob")
    assert sign_in(app, "ann", PASSWORD).status_code == 401
    assert sign_in(app, "bob", "anything").status_code == 200


def test_a_deleted_user_is_kept_out_by_every_credential(secured: Secured, clock: Clock) -> None:
    (app, m9m), (other, _) = secured(), secured()
    with app.app_context():
        m9m.users.create("ann", PASSWORD, scopes="read")
        _, key = m9m.api_keys.create("ci", "ann")
        pair = m9m.tokens.issue_pair("ann")
        plain = m9m.tokens.issue("ann")
        m9m.users.delete("ann")
    clock.advance(1.1)
    headers = [{"Authorization": f"Bearer {token}"} for token in (pair.access_token, plain)]
    for client in (app.test_client(), other.test_client()):
        for sent in (*headers, {"X-API-Key": key}):
            assert client.get("/x", headers=sent).status_code == 401
    with app.app_context():
        with pytest.raises(InvalidToken):
            m9m.tokens.refresh(pair.refresh_token)
        assert m9m.users.get("ann") is None
        assert m9m.users.verify_password("ann", PASSWORD) is None
        with pytest.raises(NotFound):
            m9m.users.delete("ann")
        m9m.users.create("ann", PASSWORD)
        assert m9m.tokens.sessions("ann") == []
    clock.advance(1.1)
    for sent in (*headers, {"X-API-Key": key}):
        assert other.test_client().get("/x", headers=sent).status_code == 401


def test_a_user_with_stored_credentials_is_not_deleted(database_url: str) -> None:
    app = Flask("app")
    settings = {
        "database": {"url": database_url},
        "credentials": {"encryption_key": "A" * 43 + "="},
    }
    m9m = M9M(app, settings=make_settings(settings))
    app.extensions["m9m"].database.upgrade()
    with app.app_context():
        m9m.users.create("ann", PASSWORD)
        made = m9m.credentials.create("one", "apiKey", {"apiKey": "x"}, owner="ann")
        with pytest.raises(Conflict, match="owns 1 stored credentials"):
            m9m.users.delete("ann")
        m9m.credentials.delete(made.id)
        m9m.users.delete("ann")
    app.extensions["m9m"].database.close()
