"""The REST API, over both databases."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask, jsonify, request
from werkzeug.security import generate_password_hash

from flask_m9m import M9M, Identity, require_auth
from flask_m9m.errors import SettingsError
from flask_m9m.storage import tables
from flask_m9m.testing import Clock, make_settings
from tests.bodies import error_of
from tests.databases import settle

PASSWORD = "correct horse"
API = "/api/v1"
Served = Callable[..., tuple[Flask, M9M]]


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


@pytest.fixture
def served(database_url: str, clock: Clock) -> Any:
    """Return a function that makes an app with the API and a user `ann`."""
    apps = []

    def serve(**security: Any) -> tuple[Flask, M9M]:
        app = Flask("app")
        settings = {
            "database": {"url": database_url},
            "api": {"enabled": True},
            "security": security,
        }
        m9m = M9M(app, settings=make_settings(settings), clock=clock)
        app.extensions["m9m"].database.upgrade()
        app.add_url_rule("/x", "x", require_auth(lambda: {"who": "you"}))
        with app.app_context():
            m9m.users.create("ann", PASSWORD, scopes="items:read items:write", roles=["editor"])
        apps.append(app)
        return app, m9m

    yield serve
    settle()
    for app in apps:
        app.extensions["m9m"].database.close()


def post(app: Flask, path: str, body: Any = None, **headers: str) -> Any:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return app.test_client().post(API + path, json=body, headers=fields)


def login(app: Flask, password: str = PASSWORD, name: str = "ann") -> Any:
    return post(app, "/auth/login", {"username": name, "password": password})


def bearer(answer: Any) -> str:
    return f"Bearer {answer.json['token']}"


def get(app: Flask, path: str, **headers: str) -> Any:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return app.test_client().get(path, headers=fields)


# Sessions


def test_a_login_answers_as_m9m_does(served: Served, clock: Clock) -> None:
    app, _ = served(jwt={"expiration": "1h"})
    answer = login(app)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(answer.json) == {"token", "refreshToken", "expiresAt", "user"}
    assert answer.json["expiresAt"] == "2025-06-15T16:06:40Z"
    assert answer.json["user"] == {
        "username": "ann",
        "scopes": ["items:read", "items:write"],
        "roles": ["editor"],
    }
    assert get(app, "/x", Authorization=bearer(answer)).status_code == 200


def test_refreshing_answers_in_the_same_shape_and_once(served: Served, clock: Clock) -> None:
    app, m9m = served()
    first = login(app).json
    with app.app_context():
        m9m.users.update("ann", scopes="items:read")
    answer = post(app, "/auth/refresh", {"refreshToken": first["refreshToken"]})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json["user"]["scopes"] == ["items:read"]
    again = post(app, "/auth/refresh", {"refreshToken": first["refreshToken"]})
    assert (again.status_code, again.json["code"]) == (409, "CONFLICT")
    clock.advance(11.0)
    stolen = post(app, "/auth/refresh", {"refreshToken": first["refreshToken"]})
    assert (stolen.status_code, stolen.json["code"]) == (401, "INVALID_TOKEN")
    assert get(app, "/x", Authorization=bearer(answer)).status_code == 401


def test_a_logout_ends_the_session_and_its_refresh_token(served: Served) -> None:
    app, _ = served()
    answer, other = login(app), login(app)
    assert post(app, "/auth/logout", Authorization=bearer(answer)).status_code == 204
    assert get(app, "/x", Authorization=bearer(answer)).status_code == 401
    refreshed = post(app, "/auth/refresh", {"refreshToken": answer.json["refreshToken"]})
    assert refreshed.status_code == 401
    assert get(app, "/x", Authorization=bearer(other)).status_code == 200


def test_a_token_of_no_session_is_logged_out_alone(served: Served) -> None:
    app, m9m = served()
    with app.app_context():
        tokens = [f"Bearer {m9m.tokens.issue('ann')}" for _ in range(2)]
    assert post(app, "/auth/logout", Authorization=tokens[0]).status_code == 204
    assert [get(app, "/x", Authorization=one).status_code for one in tokens] == [401, 200]


def test_an_api_key_is_no_session(served: Served) -> None:
    app, m9m = served()
    with app.app_context():
        _, key = m9m.api_keys.create("ci", "ann")
    assert post(app, "/auth/logout", X_API_Key=key).status_code == 401


def test_every_wrong_login_is_the_same_401(served: Served) -> None:
    app, m9m = served(lockout={"enabled": False})
    with app.app_context():
        m9m.users.create("bob", PASSWORD)
        m9m.users.disable("bob")
    wrong = [login(app, "wrong"), login(app, name="nobody"), login(app, name="bob")]
    wrong += [login(app, name="a\0b"), login(app, "x\0y"), login(app, name="x" * 300)]
    for answer in wrong:
        assert answer.status_code == 401
        assert error_of(answer) == {
            "error": "Unauthorized",
            "code": "INVALID_CREDENTIALS",
            "message": "Invalid credentials",
        }


def test_a_login_shares_its_lockout_with_basic(served: Served) -> None:
    app, _ = served(lockout={"attempts": 3}, basic_auth={"enabled": True})
    assert [login(app, "wrong").status_code for _ in range(2)] == [401, 401]
    assert get(app, "/x", Authorization="Basic YW5uOndyb25n").status_code == 401
    answer = login(app)
    assert (answer.status_code, answer.json["code"]) == (429, "TOO_MANY_ATTEMPTS")
    assert int(answer.headers["Retry-After"]) > 0


def test_refresh_tokens_that_nobody_issued_are_counted(served: Served) -> None:
    app, _ = served(lockout={"attempts": 3})
    answers = [post(app, "/auth/refresh", {"refreshToken": "e.y.J"}) for _ in range(4)]
    assert [one.status_code for one in answers] == [401, 401, 401, 429]
    token = login(app).json["refreshToken"]
    assert post(app, "/auth/refresh", {"refreshToken": token}).status_code == 200


def test_the_configured_user_and_the_apps_own_log_in(served: Served) -> None:
    hashed = generate_password_hash("battery staple", "scrypt:1024:8:1")
    app, m9m = served(
        basic_auth={"enabled": True, "username": "ops", "password_hash": hashed},
    )
    assert login(app, "battery staple", "ops").json["user"]["username"] == "ops"

    @m9m.password_verifier
    def verify(name: str, password: str) -> Identity | None:
        known = (name, password) == ("zoe", "secret words")
        return Identity(name, "basic", frozenset(["a"]), frozenset(["r"])) if known else None

    answer = login(app, "secret words", "zoe")
    assert answer.json["user"] == {"username": "zoe", "scopes": ["a"], "roles": ["r"]}
    assert login(app).status_code == 401


def test_an_app_that_wants_nobody_lets_nobody_log_in(served: Served) -> None:
    app, m9m = served()
    m9m.identity_loader(lambda identity: None)
    assert login(app).status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("", ""),
        ("[]", ""),
        ("{", ""),
        ('{"username": "ann"}', "password"),
        ('{"username": "ann", "password": 7}', "password"),
        ('{"username": ["ann"], "password": "x"}', "username"),
        ('{"username": "", "password": "x"}', "username"),
        ('{"username": "ann", "password": "x", "admin": true}', "admin"),
        ('{"username": "ann", "password": "' + "x" * 5_000 + '"}', "password"),
        ('{"username": "\\ud800", "password": "x"}', ""),
        ("[" * 50_000, ""),
        ("{" + " " * 70_000 + "}", ""),
        ("\xff\xfe", ""),
    ],
)
def test_a_body_that_is_none_is_400_and_says_where(served: Served, body: str, field: str) -> None:
    app, _ = served()
    answer = app.test_client().post(
        f"{API}/auth/login", data=body.encode("latin-1"), content_type="application/json"
    )
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert answer.json["details"][0]["field"] == field
    assert "xxxx" not in answer.text


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_a_form_can_send_is_not_read(served: Served, kind: str) -> None:
    app, _ = served()
    body = json.dumps({"username": "ann", "password": PASSWORD})
    answer = app.test_client().post(f"{API}/auth/login", data=body, content_type=kind)
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")


def test_a_problem_has_the_details_too(served: Served) -> None:
    app, _ = served()
    answer = post(app, "/auth/login", {}, Accept="application/problem+json")
    assert answer.mimetype == "application/problem+json"
    assert {one["field"] for one in answer.json["details"]} == {"username", "password"}


# API keys


def test_a_user_makes_uses_lists_and_revokes_keys(served: Served) -> None:
    app, _ = served()
    token = bearer(login(app))
    body = {"name": "ci", "scopes": ["items:read"], "expiresAt": "2025-07-01T00:00:00+02:00"}
    made = post(app, "/api-keys", body, Authorization=token)
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    assert set(made.json) == {"id", "name", "key", "scopes", "createdAt", "expiresAt"}
    assert made.json["expiresAt"] == "2025-06-30T22:00:00Z"
    assert get(app, "/x", X_API_Key=made.json["key"]).status_code == 200
    settle()

    listed = get(app, f"{API}/api-keys", Authorization=token).json
    assert listed["total"] == len(listed["data"]) == 1
    assert "key" not in listed["data"][0]
    assert listed["data"][0]["lastUsedAt"] == "2025-06-15T15:06:40Z"

    path = f"{API}/api-keys/{made.json['id']}"
    answer = app.test_client().delete(path, headers={"Authorization": token})
    assert (answer.status_code, answer.data) == (204, b"")
    assert get(app, "/x", X_API_Key=made.json["key"]).status_code == 401
    assert get(app, f"{API}/api-keys", Authorization=token).json == {"data": [], "total": 0}
    again = app.test_client().delete(path, headers={"Authorization": token})
    assert (again.status_code, again.json["code"]) == (404, "NOT_FOUND")


def test_nobody_sees_or_revokes_anothers_key(served: Served) -> None:
    app, m9m = served()
    with app.app_context():
        m9m.users.create("bob", PASSWORD)
        theirs, text = m9m.api_keys.create("theirs", "bob")
    token = bearer(login(app))
    assert get(app, f"{API}/api-keys", Authorization=token).json["total"] == 0
    answer = app.test_client().delete(
        f"{API}/api-keys/{theirs.id}", headers={"Authorization": token}
    )
    assert answer.status_code == 404
    assert get(app, "/x", X_API_Key=text).status_code == 200


@pytest.mark.parametrize("key_id", ["nobody", "a%00b", "%ff", "x" * 2_000, "'; DROP TABLE x;--"])
def test_an_unknown_id_is_404(served: Served, key_id: str) -> None:
    app, _ = served()
    headers = {"Authorization": bearer(login(app))}
    answer = app.test_client().delete(f"{API}/api-keys/{key_id}", headers=headers)
    assert answer.status_code == 404


def test_a_key_has_no_scope_that_its_maker_lacks(served: Served) -> None:
    app, m9m = served()
    with app.app_context():
        narrow = f"Bearer {m9m.tokens.issue('ann', scopes='items:read', fresh=True)}"
    body = {"name": "ci", "scopes": ["items:read", "items:write"]}
    answer = post(app, "/api-keys", body, Authorization=narrow)
    assert (answer.status_code, answer.json["code"]) == (403, "ACCESS_DENIED")
    assert 'scope="items:write"' in answer.headers["WWW-Authenticate"]
    with app.app_context():
        assert m9m.api_keys.list() == []


def test_a_key_manages_others_only_with_the_scope_for_it(served: Served, clock: Clock) -> None:
    app, m9m = served()
    with app.app_context():
        m9m.users.update("ann", scopes="items:read m9m:manage")
        plain_key, plain = m9m.api_keys.create("plain", "ann", "items:read")
        _, managing = m9m.api_keys.create(
            "managing",
            "ann",
            "items:read m9m:manage",
            expires_at=plain_key.created_at.replace(year=2026),
            rate_limit="100/hour",
        )
    body = {"name": "made", "scopes": ["items:read"]}
    for answer in (
        get(app, f"{API}/api-keys", X_API_Key=plain),
        post(app, "/api-keys", body, X_API_Key=plain),
    ):
        assert (answer.status_code, answer.json["code"]) == (403, "ACCESS_DENIED")
    made = post(app, "/api-keys", body, X_API_Key=managing)
    assert made.status_code == 201
    assert made.json["expiresAt"] == "2026-06-15T15:06:40Z"
    with app.app_context():
        (found,) = (one for one in m9m.api_keys.list() if one.id == made.json["id"])
    assert found.rate_limit == "100/hour"
    assert get(app, f"{API}/api-keys", X_API_Key=managing).json["total"] == 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x" * 256},
        {"name": "ci", "owner": "bob"},
        {"name": "ci", "roles": ["admin"]},
        {"name": "ci", "scopes": "items:read"},
        {"name": "ci", "expiresAt": "tomorrow"},
        {"name": "ci", "expiresAt": "2030-01-01T00:00:00"},
        {"name": "ci", "expiresAt": "2020-01-01T00:00:00Z"},
        {"name": "ci", "expiresAt": "9999-12-31T23:59:59-12:00"},
        {"name": "ci", "scopes": ["items:read"] * 300},
    ],
)
def test_a_key_that_cannot_be_made_is_400(served: Served, body: Any) -> None:
    app, m9m = served()
    answer = post(app, "/api-keys", body, Authorization=bearer(login(app)))
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert answer.json["details"]
    with app.app_context():
        assert m9m.api_keys.list() == []


# What surrounds it


def test_nothing_is_served_unless_it_is_asked_for(database_url: str) -> None:
    app = Flask("app")
    M9M(app, settings=make_settings({"database": {"url": database_url}}))
    for path in (f"{API}/auth/login", f"{API}/api-keys", "/health", "/healthz", "/ready"):
        assert app.test_client().get(path).status_code == 404


def test_health_is_public_and_the_rest_is_not(served: Served) -> None:
    app, _ = served(default_access="authenticated")
    for path in ("/health", "/healthz"):
        answer = get(app, path)
        assert (answer.status_code, answer.json) == (200, {"status": "ok"})
        assert answer.headers["Cache-Control"] == "no-store"
    assert login(app).status_code == 200
    assert get(app, f"{API}/api-keys").status_code == 401
    assert post(app, "/auth/logout").status_code == 401


def test_ready_says_which_part_is_not(
    served: Served, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, _ = served()
    answer = get(app, "/ready")
    assert (answer.status_code, answer.json) == (
        200,
        {"status": "ready", "parts": {"database": "ok"}},
    )

    def away(*_: object) -> None:
        raise sa.exc.OperationalError("SELECT secret", {}, Exception("hunter2"))

    monkeypatch.setattr(app.extensions["m9m"].database, "read", away)
    clock.advance(2.0)
    answer = get(app, "/ready")
    assert (answer.status_code, answer.json) == (
        503,
        {"status": "unavailable", "parts": {"database": "unavailable"}},
    )


def test_a_servers_database_without_tables_is_not_ready(postgres_url: str) -> None:
    app = Flask("app")
    settings = {"database": {"url": postgres_url}, "api": {"enabled": True}}
    M9M(app, settings=make_settings(settings))
    assert get(app, "/ready").status_code == 503
    app.extensions["m9m"].database.upgrade()
    app.extensions["m9m"].identities.api_keys._feed._fresh_until = 0.0
    assert get(app, "/ready").status_code == 200
    settle()
    app.extensions["m9m"].database.close()


def test_an_app_that_keeps_nothing_yet_is_ready(sqlite_url: str) -> None:
    app = Flask("app")
    settings = {"database": {"url": sqlite_url}, "api": {"enabled": True}}
    M9M(app, settings=make_settings(settings))
    assert get(app, "/ready").status_code == 200


@pytest.mark.parametrize("jwt", [{"enabled": False}, {"secret": None}])
def test_the_api_needs_tokens(jwt: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"api\.enabled"):
        M9M(Flask("app"), settings={"api": {"enabled": True}, "security": {"jwt": jwt}})


def test_the_prefix_is_the_settings_and_several_apps_each_have_their_own(
    sqlite_url: str,
) -> None:
    for prefix in ("/v2", "/intern/api"):
        app = Flask("app")
        settings = {"api": {"enabled": True, "prefix": prefix}, "database": {"url": sqlite_url}}
        M9M(app, settings=make_settings(settings))
        assert app.test_client().post(f"{prefix}/auth/login").status_code == 400


def test_an_apps_own_health_route_stays_its_own(sqlite_url: str) -> None:
    app = Flask("app")
    app.add_url_rule("/health", "health", lambda: jsonify(mine=True))
    settings = {"api": {"enabled": True}, "database": {"url": sqlite_url}}
    M9M(app, settings=make_settings(settings))
    assert app.test_client().get("/health").json == {"mine": True}


def test_the_rows_of_a_session_tell_no_token(served: Served) -> None:
    app, _ = served()
    token = login(app).json["refreshToken"]
    with app.extensions["m9m"].database._connected().connect() as connection:
        rows = connection.execute(sa.select(tables.sessions)).all()
    assert token.split(".")[2] not in repr(rows)


@pytest.mark.parametrize(
    "scope", ["a\r\nX-Evil: 1\r\n\r\n<b>body", "\u2603", 'x", error="y', "", "a b", "x" * 60_000]
)
def test_a_scope_that_is_none_reaches_no_header(served: Served, scope: str) -> None:
    app, _ = served()
    body = {"name": "ci", "scopes": [scope]}
    answer = post(app, "/api-keys", body, Authorization=bearer(login(app)))
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert "WWW-Authenticate" not in answer.headers


def test_many_missing_scopes_make_no_long_header(served: Served) -> None:
    app, _ = served()
    body = {"name": "ci", "scopes": [f"scope-{number}" for number in range(250)]}
    answer = post(app, "/api-keys", body, Authorization=bearer(login(app)))
    assert answer.status_code == 403
    assert len(answer.headers["WWW-Authenticate"]) < 500


def test_a_logout_ends_the_session_whatever_the_app_makes_of_the_identity(served: Served) -> None:
    app, m9m = served()
    m9m.identity_loader(lambda identity: Identity(f"id of {identity.subject}", "x"))
    answer = login(app)
    assert post(app, "/auth/logout", Authorization=bearer(answer)).status_code == 204
    refreshed = post(app, "/auth/refresh", {"refreshToken": answer.json["refreshToken"]})
    assert refreshed.status_code == 401


def test_what_the_app_lends_an_identity_goes_into_no_key(served: Served) -> None:
    app, m9m = served()

    @m9m.identity_loader
    def load(identity: Identity) -> Identity:
        return Identity(identity.subject, "x", scopes=frozenset(["items:read", "admin"]))

    token = bearer(login(app))
    lent = {"name": "ci", "scopes": ["admin"]}
    taken = {"name": "ci", "scopes": ["items:write"]}
    for body in (lent, taken):
        assert post(app, "/api-keys", body, Authorization=token).status_code == 403
    left = {"name": "ci", "scopes": ["items:read"]}
    assert post(app, "/api-keys", left, Authorization=token).status_code == 201


def test_keys_that_a_key_makes_share_its_limits(served: Served, clock: Clock) -> None:
    app, m9m = served()
    m9m.identity_loader(lambda one: Identity(one.subject, one.scheme, one.scopes))
    with app.app_context():
        m9m.users.update("ann", scopes="m9m:manage")
        ends = datetime.fromtimestamp(clock() + 3_600, UTC)
        _, key = m9m.api_keys.create("a", "ann", "m9m:manage", (), ends, "4/minute")
    made = [post(app, "/api-keys", {"name": "ci"}, X_API_Key=key) for _ in range(2)]
    assert {one.json["expiresAt"] for one in made} == {"2025-06-15T16:06:40Z"}
    keys = [one.json["key"] for one in made]
    assert [get(app, "/x", X_API_Key=one).status_code for one in (*keys, *keys)] == [
        200,
        200,
        429,
        429,
    ]


def test_a_login_gives_no_more_than_the_apps_verifier_named(served: Served) -> None:
    app, m9m = served()
    m9m.password_verifier(lambda name, _: Identity(name, "basic", frozenset(["items:read"])))
    assert login(app).json["user"] == {"username": "ann", "scopes": ["items:read"], "roles": []}


@pytest.mark.parametrize("how", ["get_data", "get_json"])
def test_a_body_that_the_app_has_read_is_read_all_the_same(served: Served, how: str) -> None:
    app, _ = served()
    app.before_request(lambda: getattr(request, how)() and None)
    assert login(app).status_code == 200


def test_a_body_is_refused_at_some_length_and_its_faults_are_few(served: Served) -> None:
    app, _ = served()
    many = json.dumps({f"unknown-{number}": 1 for number in range(3_000)})
    answer = app.test_client().post(f"{API}/auth/login", data=many, content_type="application/json")
    assert (answer.status_code, len(answer.json["details"])) == (400, 16)
    twice = '{"username": "ann", "username": "bob", "password": "x"}'
    answer = app.test_client().post(
        f"{API}/auth/login", data=twice, content_type="application/json"
    )
    assert answer.status_code == 400


@pytest.mark.parametrize("nobody", [None, "", 7])
def test_a_scheme_that_proves_nobody_lists_nobodys_keys(sqlite_url: str, nobody: Any) -> None:
    app, m9m = Flask("app"), M9M()
    m9m.authenticator("odd")(lambda: Identity(nobody, "odd"))
    settings = {"api": {"enabled": True}, "database": {"url": sqlite_url}}
    m9m.init_app(app, settings=make_settings(settings))
    assert get(app, f"{API}/api-keys").status_code == 500


def test_a_scheme_that_comes_too_late_is_an_error(served: Served) -> None:
    _, m9m = served()
    with pytest.raises(RuntimeError, match="before the app is first used"):
        m9m.authenticator("late")(lambda: None)


def test_tokens_that_fit_in_no_cookie_are_said_to(served: Served) -> None:
    app, m9m = served(jwt={"cookie": {"enabled": True}})
    with app.app_context():
        m9m.users.update("ann", scopes=[f"a-scope-of-some-length-{n}" for n in range(150)])
    body = {"username": "ann", "password": PASSWORD, "cookies": True}
    answer = post(app, "/auth/login", body)
    assert (answer.status_code, answer.json["code"]) == (409, "CONFLICT")
    assert "Set-Cookie" not in answer.headers
