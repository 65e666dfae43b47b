"""What attackers try on the REST API and on the cookies of browsers, and do not get."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
from flask import Flask, request

from flask_m9m import M9M, Identity, current_identity, public, require_auth
from flask_m9m.errors import SettingsError
from flask_m9m.testing import Clock, make_settings
from tests.databases import settle

SECRET = "x1" * 32
PASSWORD = "correct horse"
LOGIN = {"username": "ann", "password": PASSWORD}
IN_COOKIES = {**LOGIN, "cookies": True}
API, SITE = "/api/v1", "https://localhost"
ACCESS, CSRF = "__Host-m9m-access", "__Host-m9m-csrf"
FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost"},
    {"Origin": "https://localhost.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "SAME-SITE"},
]


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


@pytest.fixture
def m9m(clock: Clock) -> M9M:
    return M9M(clock=clock)


@pytest.fixture
def app(sqlite_url: str, m9m: M9M) -> Iterator[Flask]:
    """An app with the API, cookies and a scheme of its own, and a user `ann`."""
    app = Flask("app")
    settings = {
        "database": {"url": sqlite_url},
        "api": {"enabled": True},
        "security": {"jwt": {"secret": SECRET, "cookie": {"enabled": True}}},
    }
    m9m.init_app(app, settings=make_settings(settings))

    @m9m.authenticator("device")
    def device() -> Identity | None:
        scopes = frozenset(("items:read", "admin"))
        return Identity("ann", "device", scopes) if "X-Device" in request.headers else None

    app.extensions["m9m"].database.upgrade()

    methods = ["GET", "POST", "PATCH", "PURGE"]

    @app.route("/x", methods=methods)
    @require_auth
    def view() -> Any:
        return {"who": current_identity.subject}

    @app.route("/maybe", methods=methods)
    @require_auth(optional=True)
    def maybe() -> Any:
        return {"who": current_identity.subject if current_identity else None}

    with app.app_context():
        m9m.users.create("ann", PASSWORD, scopes="items:read items:write m9m:manage")
    yield app
    settle()
    app.extensions["m9m"].database.close()


@pytest.fixture
def page(app: Flask) -> Any:
    """A browser that has logged in."""
    client: Any = app.test_client()
    assert client.post(f"{SITE}{API}/auth/login", json=IN_COOKIES).status_code == 200
    return client


def post(app: Flask, path: str, body: Any = None, **fields: str) -> Any:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return app.test_client().post(API + path, json=body, headers=headers)


def bearer(app: Flask) -> str:
    return f"Bearer {post(app, '/auth/login', LOGIN).json['token']}"


def keys(app: Flask, m9m: M9M) -> list[str]:
    with app.app_context():
        return [one.name for one in m9m.api_keys.list()]


def with_cookie_field(app: Flask, field: str, path: str = "/x") -> Any:
    """Send a `Cookie` field as it is; a client that keeps cookies would put its own there."""
    client = app.test_client(use_cookies=False)
    return client.get(SITE + path, environ_overrides={"HTTP_COOKIE": field})


# Cookies, and other sites


@pytest.mark.parametrize("method", ["POST", "post", "Post", "PATCH", "PURGE"])
def test_a_cookie_changes_nothing_without_the_csrf_token_by_whatever_method(
    page: Any, method: str
) -> None:
    for path in ("/x", "/maybe"):
        answer: Any = page.open(SITE + path, method=method)
        assert (answer.status_code, answer.json["code"]) == (403, "CSRF_FAILED")


@pytest.mark.parametrize(
    "fields",
    [
        {"X-CSRF-Token": ""},
        {"X-CSRFToken": "{token}"},
        {"X-CSRF-Token": "{token},{token}"},
        {"X-CSRF-Token": "{token}="},
        {"X-CSRF-Token": "{token}", "Origin": "https://evil.example"},
        {"X-HTTP-Method-Override": "GET"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
def test_what_is_nearly_a_csrf_token_is_none(page: Any, fields: dict[str, str]) -> None:
    token = page.get_cookie(CSRF).value
    sent = {name: value.replace("{token}", token) for name, value in fields.items()}
    assert page.post(f"{SITE}/x", headers=sent).status_code == 403


@pytest.mark.parametrize("foreign", FOREIGN)
def test_no_other_site_logs_a_browser_in(app: Flask, foreign: dict[str, str]) -> None:
    client: Any = app.test_client()
    answer = client.post(f"{SITE}{API}/auth/login", json=IN_COOKIES, headers=foreign)
    assert (answer.status_code, answer.json["code"]) == (403, "CSRF_FAILED")
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("foreign", FOREIGN)
def test_no_other_site_spends_a_browsers_refresh_token(page: Any, foreign: dict[str, str]) -> None:
    token = {"X-CSRF-Token": page.get_cookie(CSRF).value}
    path = f"{SITE}{API}/auth/refresh"
    assert page.post(path, headers={**token, **foreign}).status_code == 403
    assert page.post(path, headers=foreign).status_code == 403
    assert page.post(path, headers=token).status_code == 200


def test_no_page_without_the_token_makes_or_revokes_a_key_by_cookie(
    app: Flask, m9m: M9M, page: Any
) -> None:
    with app.app_context():
        key, _ = m9m.api_keys.create("old", "ann")
    assert page.post(f"{SITE}{API}/api-keys", json={"name": "new"}).status_code == 403
    assert page.delete(f"{SITE}{API}/api-keys/{key.id}").status_code == 403
    assert page.post(f"{SITE}{API}/auth/logout").status_code == 403
    with app.app_context():
        assert [(one.name, one.revoked_at) for one in m9m.api_keys.list()] == [("old", None)]
    assert page.get(f"{SITE}/x").status_code == 200


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"X-API-Key": "m9m_sk_forged"}, "INVALID_API_KEY"),
        ({"Authorization": ""}, "INVALID_CREDENTIALS"),
        ({"Authorization": "Negotiate abc"}, "INVALID_CREDENTIALS"),
        ({"Authorization": "Bearer x"}, "INVALID_TOKEN"),
    ],
)
def test_a_cookie_makes_up_for_no_bad_credential(
    page: Any, fields: dict[str, str], code: str
) -> None:
    for path in ("/x", "/maybe"):
        answer = page.get(SITE + path, headers=fields)
        assert (answer.status_code, answer.json["code"]) == (401, code)


def test_a_bad_cookie_is_nobody_on_no_route(app: Flask) -> None:
    assert with_cookie_field(app, "a=b", "/maybe").json == {"who": None}
    for path in ("/x", "/maybe"):
        answer = with_cookie_field(app, f"{ACCESS}=x", path)
        assert (answer.status_code, answer.json["code"]) == (401, "INVALID_TOKEN")


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("{n}={t}; {n}={t}", "INVALID_TOKEN"),
        ("{n}=x; a=b; {n}={t}", "INVALID_TOKEN"),
        ("{n}={t}\0", "INVALID_TOKEN"),
        ("{n}={t}x", "INVALID_TOKEN"),
        ("{n}=", "INVALID_TOKEN"),
        ("__host-m9m-access={t}", "AUTH_REQUIRED"),
        ("x{n}={t}", "AUTH_REQUIRED"),
        ("={n}={t}", "AUTH_REQUIRED"),
        ("a=b, {n}={t}", "AUTH_REQUIRED"),
        ("\x0b{n}={t}", "AUTH_REQUIRED"),
        ("\x85{n}={t}", "AUTH_REQUIRED"),
        ("\xa0{n}={t}", "AUTH_REQUIRED"),
        ("\xe2\x80\x80{n}={t}", "AUTH_REQUIRED"),
    ],
)
def test_a_cookie_field_that_neighbours_meddled_with_lets_nobody_in(
    app: Flask, page: Any, field: str, code: str
) -> None:
    token = page.get_cookie(ACCESS).value
    assert with_cookie_field(app, f"a=b; {ACCESS}={token}").json == {"who": "ann"}
    answer = with_cookie_field(app, field.replace("{n}", ACCESS).replace("{t}", token))
    assert (answer.status_code, answer.json["code"]) == (401, code)


@pytest.mark.parametrize("field", ["a=\xff; {n}={t}", "\xff; {n}={t}", "{n}={t}; {n}; \0=x"])
def test_a_cookie_of_a_neighbours_locks_nobody_out(app: Flask, page: Any, field: str) -> None:
    token = page.get_cookie(ACCESS).value
    answer = with_cookie_field(app, field.replace("{n}", ACCESS).replace("{t}", token))
    assert answer.json == {"who": "ann"}


def test_of_two_tabs_that_refresh_at_once_neither_loses_the_session(app: Flask, page: Any) -> None:
    token = {"X-CSRF-Token": page.get_cookie(CSRF).value}
    other: Any = app.test_client()
    for name in (ACCESS, "__Host-m9m-refresh", CSRF):
        other.set_cookie(name, page.get_cookie(name).value, secure=True)
    path = f"{SITE}{API}/auth/refresh"
    assert page.post(path, headers=token).status_code == 200
    late = other.post(path, headers=token)
    assert (late.status_code, late.json["code"]) == (409, "CONFLICT")
    assert "Set-Cookie" not in late.headers
    assert page.post(path, headers=token).status_code == 200


# Rights


def test_a_key_that_manages_gives_only_what_it_has_itself(app: Flask, m9m: M9M) -> None:
    with app.app_context():
        _, text = m9m.api_keys.create("manages", "ann", "m9m:manage items:read")
    wanted = {"name": "made", "scopes": ["items:write"]}
    assert post(app, "/api-keys", wanted, X_API_Key=text).status_code == 403
    assert keys(app, m9m) == ["manages"]


def test_a_key_manages_no_longer_once_its_owner_may_not(app: Flask, m9m: M9M) -> None:
    with app.app_context():
        _, text = m9m.api_keys.create("manages", "ann", "m9m:manage")
        m9m.users.update("ann", scopes="items:read")
    assert post(app, "/api-keys", {"name": "made"}, X_API_Key=text).status_code == 403
    with app.app_context():
        m9m.users.disable("ann")
    assert post(app, "/api-keys", {"name": "made"}, X_API_Key=text).status_code == 401
    assert keys(app, m9m) == ["manages"]


def test_a_scheme_of_the_apps_own_gives_no_key_more_than_the_user_of_that_name_has(
    app: Flask, m9m: M9M
) -> None:
    answer = post(app, "/api-keys", {"name": "made", "scopes": ["admin"]}, X_Device="1")
    assert (answer.status_code, answer.json["code"]) == (401, "FRESH_TOKEN_REQUIRED")
    assert keys(app, m9m) == []


def test_a_scope_that_the_loader_took_away_is_not_given_to_a_key(app: Flask, m9m: M9M) -> None:
    m9m.identity_loader(lambda one: replace(one, scopes=one.scopes - {"items:write"}))
    wanted = {"name": "made", "scopes": ["items:write"]}
    assert post(app, "/api-keys", wanted, Authorization=bearer(app)).status_code == 403


def test_no_pattern_opens_the_routes_of_the_api(app: Flask, m9m: M9M) -> None:
    m9m.protect("*", public)
    assert app.test_client().get(f"{API}/api-keys").status_code == 401
    assert post(app, "/auth/logout").status_code == 401


@pytest.mark.parametrize("sid", ["", "a\0b", "x" * 5_000, 7])
def test_another_issuers_session_id_ends_that_token_alone(
    app: Flask, clock: Clock, sid: object
) -> None:
    ours = bearer(app)
    claims = {"sub": "ann", "iat": clock(), "exp": clock() + 600, "jti": "j", "sid": sid}
    theirs = f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"
    assert post(app, "/auth/logout", Authorization=theirs).status_code == 204
    found = [
        app.test_client().get("/x", headers={"Authorization": one}).status_code
        for one in (theirs, ours)
    ]
    assert found == [401, 200]


def test_another_spelling_of_a_name_has_no_guesses_of_its_own(app: Flask) -> None:
    for number in range(10):
        name = ("ann", "ANN", "Ann", "\uff41nn")[number % 4]
        assert post(app, "/auth/login", {"username": name, "password": "x"}).status_code == 401
    assert post(app, "/auth/login", {"username": "aNn", "password": "x"}).status_code == 429


# Bodies and answers


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + json.dumps(LOGIN).encode(),
        json.dumps(LOGIN).encode("utf-16"),
        gzip.compress(json.dumps(LOGIN).encode(), mtime=0),
        b'{"username": NaN, "password": "hunter2"}',
        b'{"username": ' + b"9" * 60_000 + b', "password": "hunter2"}',
        b'{"username": {"hunter2": "hunter2"}, "password": "hunter2"}',
        b'{"username": "ann", "password": "hunter2"} {}',
        b"{'username': 'hunter2'}",
    ],
)
def test_a_body_in_another_encoding_or_of_other_json_is_400_and_not_told_again(
    app: Flask, body: bytes
) -> None:
    client: Any = app.test_client()
    answer = client.post(
        f"{API}/auth/login",
        data=body,
        content_type="application/json; charset=utf-16",
        headers={"Content-Encoding": "gzip"},
    )
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert "hunter2" not in answer.text


def test_no_cache_keeps_an_answer_of_the_api(app: Flask) -> None:
    first = post(app, "/auth/login", LOGIN)
    refresh, token = first.json["refreshToken"], f"Bearer {first.json['token']}"
    client = app.test_client()
    answers = [
        first,
        post(app, "/auth/login", {}),
        post(app, "/auth/login", {**LOGIN, "password": "x"}),
        post(app, "/auth/refresh", {"refreshToken": refresh}),
        post(app, "/auth/refresh"),
        post(app, "/api-keys", {"name": "made"}, Authorization=token),
        post(app, "/api-keys", {"name": "m", "scopes": ["admin"]}, Authorization=token),
        client.get(f"{API}/api-keys", headers={"Authorization": token}),
        client.delete(f"{API}/api-keys/x", headers={"Authorization": token}),
        client.get("/health"),
        client.get("/ready"),
        post(app, "/auth/logout", Authorization=token),
    ]
    codes = [one.status_code for one in answers]
    assert codes == [200, 400, 401, 200, 401, 201, 403, 200, 404, 200, 200, 204]
    for answer in answers:
        assert answer.headers.getlist("Cache-Control") == ["no-store"]
        assert answer.headers.getlist("X-Content-Type-Options") == ["nosniff"]


@pytest.mark.parametrize(
    "prefix", ["", "/", "api", "/api/", "//evil", "/a//b", "/<x>", "/a b", "/%2f", "/a\n", "/\xe9"]
)
def test_a_prefix_that_is_no_plain_path_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match=r"api\.prefix"):
        make_settings({"api": {"enabled": True, "prefix": prefix}})
