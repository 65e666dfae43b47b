"""A session's tokens in cookies, and the requests that other sites make browsers send."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from flask import Flask, Response, request
from flask.testing import FlaskClient

from flask_m9m import M9M, current_identity, require_auth
from flask_m9m.errors import SettingsError
from flask_m9m.testing import Clock, make_settings
from tests.databases import settle

PASSWORD = "correct horse"
SECRET, NEXT = "x1" * 32, "y2" * 32
LOGIN = {"username": "ann", "password": PASSWORD, "cookies": True}
ACCESS, REFRESH, CSRF = (f"__Host-m9m-{name}" for name in ("access", "refresh", "csrf"))
SITE = "https://localhost"


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


def make(url: str, clock: Clock, *, cors: Any = None, **jwt: Any) -> tuple[Flask, M9M]:
    app = Flask("app")
    jwt = {"secret": SECRET, "cookie": {"enabled": True}, **jwt}
    settings = {
        "database": {"url": url},
        "api": {"enabled": True},
        "security": {"jwt": jwt, "cors": cors or {}},
    }
    m9m = M9M(app, settings=make_settings(settings), clock=clock)
    app.extensions["m9m"].database.upgrade()

    @app.route("/x", methods=["GET", "POST", "DELETE"])
    @require_auth
    def view() -> Any:
        return {"subject": current_identity.subject, "scheme": current_identity.scheme}

    app.add_url_rule("/bearer", "bearer", require_auth(schemes="bearer")(lambda: "x"))
    return app, m9m


@pytest.fixture
def app(sqlite_url: str, clock: Clock) -> Iterator[Flask]:
    """An app with cookies switched on, and a user `ann`."""
    made, m9m = make(sqlite_url, clock)
    with made.app_context():
        m9m.users.create("ann", PASSWORD)
    yield made
    settle()
    made.extensions["m9m"].database.close()


class Browser:
    """A page's client: it keeps cookies, unless a `Cookie` field is sent, and speaks HTTPS."""

    def __init__(self, app: Flask) -> None:
        self.client: FlaskClient = app.test_client()

    def cookie(self, name: str) -> str | None:
        found = self.client.get_cookie(name)
        return None if found is None else found.value

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        client = self.client
        if "Cookie" in fields:
            client = client.application.test_client(use_cookies=False)
        return client.open(
            path, method=method, json=body, headers=fields, base_url=SITE, follow_redirects=False
        )

    def login(self, **headers: str) -> Any:
        return self.ask("POST", "/api/v1/auth/login", LOGIN, **headers)

    def refresh(self, **headers: str) -> Any:
        return self.ask("POST", "/api/v1/auth/refresh", **headers)


@pytest.fixture
def browser(app: Flask) -> Browser:
    """A browser that has logged in."""
    browser = Browser(app)
    assert browser.login().status_code == 200
    return browser


def test_a_login_gives_cookies_that_scripts_cannot_read(app: Flask) -> None:
    answer = Browser(app).login()
    assert set(answer.json) == {"expiresAt", "user", "csrfToken"}
    cookies = {one.partition("=")[0]: one for one in answer.headers.getlist("Set-Cookie")}
    assert set(cookies) == {ACCESS, REFRESH, CSRF}
    for name, cookie in cookies.items():
        attributes = cookie.split("; ")[1:]
        assert {"Secure", "Path=/", "SameSite=Lax"} <= set(attributes)
        assert ("HttpOnly" in attributes) is (name != CSRF)
        assert not any(one.startswith("Domain") for one in attributes)
    assert "Max-Age=86400" in cookies[ACCESS]
    assert "Max-Age=604800" in cookies[REFRESH]


def test_a_login_without_cookies_is_that_of_any_client(app: Flask) -> None:
    answer = Browser(app).ask("POST", "/api/v1/auth/login", {**LOGIN, "cookies": False})
    assert "token" in answer.json
    assert "Set-Cookie" not in answer.headers


def test_a_browser_reads_with_its_cookie_and_writes_with_the_csrf_token(browser: Browser) -> None:
    read = browser.ask("GET", "/x")
    assert read.json == {"subject": "ann", "scheme": "cookie"}
    assert "Cookie" in read.headers["Vary"]
    assert read.headers["Cache-Control"] == "no-store"
    token = browser.cookie(CSRF)
    assert token is not None
    assert browser.ask("POST", "/x", X_CSRF_Token=token).status_code == 200
    refused = browser.ask("POST", "/x")
    assert (refused.status_code, refused.json["code"]) == (403, "CSRF_FAILED")


@pytest.mark.parametrize("wrong", ["", "x", "\xe4", "x" * 100_000])
def test_a_wrong_csrf_token_is_refused(browser: Browser, wrong: str) -> None:
    for method in ("POST", "DELETE"):
        assert browser.ask(method, "/x", X_CSRF_Token=wrong).status_code == 403


def test_another_sessions_csrf_token_is_refused(app: Flask, browser: Browser) -> None:
    other = Browser(app).login().json["csrfToken"]
    assert browser.ask("POST", "/x", X_CSRF_Token=other).status_code == 403


@pytest.mark.parametrize(
    "sent",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_foreign_page_is_refused_although_it_knows_the_token(
    browser: Browser, sent: dict[str, str]
) -> None:
    token = browser.cookie(CSRF) or ""
    assert browser.ask("POST", "/x", X_CSRF_Token=token, **sent).status_code == 403
    assert browser.login(**sent).status_code == 403
    assert browser.refresh(X_CSRF_Token=token, **sent).status_code == 403
    assert browser.refresh(X_CSRF_Token=token).status_code == 200


def test_an_origin_that_cors_lets_send_credentials_may_write(sqlite_url: str, clock: Clock) -> None:
    origin = "https://app.example.com"
    app, m9m = make(
        sqlite_url, clock, cors={"allowed_origins": [origin], "allow_credentials": True}
    )
    with app.app_context():
        m9m.users.create("ann", PASSWORD)
    browser = Browser(app)
    answer = browser.login(Origin=origin)
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    sent = {"Origin": origin, "X_CSRF_Token": answer.json["csrfToken"]}
    assert browser.ask("POST", "/x", **sent).status_code == 200
    assert browser.ask("POST", "/x", Origin=origin).status_code == 403
    app.extensions["m9m"].database.close()


def test_the_csrf_token_is_an_hmac_over_the_sid(browser: Browser, app: Flask) -> None:
    with app.app_context():
        claims = app.extensions["m9m"].identities.tokens.verify(browser.cookie(ACCESS)).claims
    key = HKDF(SHA256(), 32, salt=None, info=b"flask-m9m csrf v1").derive(SECRET.encode())
    digest = hmac.new(key, claims["sid"].encode(), hashlib.sha256).digest()
    assert browser.cookie(CSRF) == urlsafe_b64encode(digest).decode().rstrip("=")


def test_a_cookie_counts_only_where_nothing_else_was_sent(app: Flask, browser: Browser) -> None:
    with app.app_context():
        services = app.extensions["m9m"].identities
        token = services.tokens.issue("bob")
        _, key = services.api_keys.create("ci", "zoe")
    assert browser.ask("GET", "/x", Authorization=f"Bearer {token}").json["subject"] == "bob"
    assert browser.ask("POST", "/x", Authorization=f"Bearer {token}").json["subject"] == "bob"
    assert browser.ask("GET", "/x", X_API_Key=key).json["subject"] == "zoe"
    for bad in ("Bearer x", "Basic eDp5", "", "Nonsense"):
        assert browser.ask("GET", "/x", Authorization=bad).status_code == 401
    assert browser.ask("GET", "/x", X_API_Key="m9m_sk_x").status_code == 401


def test_a_route_can_leave_cookies_out(browser: Browser) -> None:
    assert browser.ask("GET", "/bearer").status_code == 401


def test_refreshing_gives_new_cookies_and_tells_a_script_no_token(
    browser: Browser, clock: Clock
) -> None:
    before = {name: browser.cookie(name) for name in (ACCESS, REFRESH, CSRF)}
    token = before[CSRF] or ""
    assert browser.refresh().status_code == 403
    clock.advance(1.0)
    answer = browser.refresh(X_CSRF_Token=token)
    assert answer.status_code == 200
    assert set(answer.json) == {"expiresAt", "user", "csrfToken"}
    after = {name: browser.cookie(name) for name in (ACCESS, REFRESH, CSRF)}
    assert [after[name] != before[name] for name in after] == [True, True, False]
    assert browser.ask("GET", "/x").status_code == 200


def test_refreshing_with_an_empty_object_is_refreshing_by_cookie(browser: Browser) -> None:
    token = browser.cookie(CSRF) or ""
    answer = browser.ask("POST", "/api/v1/auth/refresh", {}, X_CSRF_Token=token)
    assert answer.status_code == 200
    assert Browser(browser.client.application).refresh().status_code == 401


def test_a_logout_ends_the_session_and_its_cookies(browser: Browser) -> None:
    kept = browser.cookie(ACCESS)
    assert browser.ask("POST", "/api/v1/auth/logout").status_code == 403
    token = browser.cookie(CSRF) or ""
    answer = browser.ask("POST", "/api/v1/auth/logout", X_CSRF_Token=token)
    assert answer.status_code == 204
    assert all("Max-Age=0" in one for one in answer.headers.getlist("Set-Cookie"))
    assert [browser.cookie(name) for name in (ACCESS, REFRESH, CSRF)] == [None] * 3
    stale = browser.ask("GET", "/x", Cookie=f"{ACCESS}={kept}")
    assert stale.status_code == 401


def test_an_access_token_is_no_refresh_token_and_the_reverse(browser: Browser) -> None:
    access, refresh = browser.cookie(ACCESS), browser.cookie(REFRESH)
    browser.client = browser.client.application.test_client()
    assert browser.ask("GET", "/x", Cookie=f"{ACCESS}={refresh}").status_code == 401
    assert browser.refresh(Cookie=f"{REFRESH}={access}").status_code == 401


def test_a_token_of_no_session_is_no_cookie(app: Flask) -> None:
    with app.app_context():
        token = app.extensions["m9m"].identities.tokens.issue("ann")
    assert Browser(app).ask("GET", "/x", Cookie=f"{ACCESS}={token}").status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "{n}={t}; {n}={t}",
        "{n}=",
        "{n}",
        "{n}=\xff\xfe",
        "{n}={t}x",
        "x{n}={t}",
        "{n}=" + "x" * 100_000,
        "; " * 490 + "{n}=",
    ],
)
def test_garbage_in_the_cookie_field_is_401(app: Flask, browser: Browser, header: str) -> None:
    sent = header.replace("{n}", ACCESS).replace("{t}", browser.cookie(ACCESS) or "")
    client = app.test_client(use_cookies=False)  # else it would send none but its own
    answer = client.get("/x", environ_overrides={"HTTP_COOKIE": sent})
    assert answer.status_code == 401


def test_cookies_outlive_the_rotation_of_the_secret(
    sqlite_url: str, clock: Clock, browser: Browser
) -> None:
    app, _ = make(sqlite_url, clock, secret=NEXT, previous_secrets=[SECRET])
    later = Browser(app)
    for name in (ACCESS, REFRESH, CSRF):
        later.client.set_cookie(name, browser.cookie(name) or "", secure=True)
    token = browser.cookie(CSRF) or ""
    assert later.ask("POST", "/x", X_CSRF_Token=token).status_code == 200
    assert later.refresh(X_CSRF_Token=token).status_code == 200
    assert later.cookie(CSRF) != token
    app.extensions["m9m"].database.close()


def test_cookies_are_off_by_default(sqlite_url: str, clock: Clock, browser: Browser) -> None:
    app, m9m = make(sqlite_url, clock, cookie={"enabled": False})
    token = browser.cookie(ACCESS)
    assert Browser(app).ask("GET", "/x", Cookie=f"{ACCESS}={token}").status_code == 401
    answer = Browser(app).login()
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert Browser(app).refresh(Cookie=f"{REFRESH}={token}").status_code == 401
    with app.test_request_context(), pytest.raises(SettingsError, match="cookie"):
        m9m.clear_cookies(Response())
    app.extensions["m9m"].database.close()


def test_an_apps_own_login_gives_the_same_cookies(sqlite_url: str, clock: Clock) -> None:
    app, m9m = make(sqlite_url, clock, cookie={"enabled": True, "same_site": "Strict"})

    @app.post("/login")
    def login() -> Response:
        answer = Response("welcome")
        m9m.set_cookies(answer, m9m.tokens.issue_pair(request.json["name"]))
        return answer

    @app.post("/logout")
    def logout() -> Response:
        answer = Response("bye")
        m9m.clear_cookies(answer)
        return answer

    browser = Browser(app)
    answer = browser.ask("POST", "/login", {"name": "zoe"})
    assert all("SameSite=Strict" in one for one in answer.headers.getlist("Set-Cookie"))
    assert browser.ask("GET", "/x").json["subject"] == "zoe"
    browser.ask("POST", "/logout")
    assert browser.ask("GET", "/x").status_code == 401
    app.extensions["m9m"].database.close()


def test_a_token_that_does_not_fit_in_a_cookie_is_an_error(app: Flask) -> None:
    services = app.extensions["m9m"].identities
    with app.app_context():
        pair = services.tokens.issue_pair("ann", claims={"much": "x" * 4_000})
        with pytest.raises(ValueError, match="does not fit"):
            services.cookies.fields(pair)
