"""Step 9: what every answer carries, each exactly once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, make_response, render_template_string, session
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_m9m import cacheable, csp_nonce, public, require_auth
from flask_m9m.errors import InvalidToken
from flask_m9m.testing import client_as
from tests.bodies import error_of
from tests.conftest import CHALLENGES, MakeApp

ORIGIN = "https://app.example.com"
OPEN = {
    "security": {"cors": {"allowed_origins": [ORIGIN], "allow_credentials": True}},
    "performance": {"rate_limit": {"enabled": True, "requests_per_minute": 6000, "burst": 1000}},
}
EVERYWHERE = (
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
    "Referrer-Policy",
    "Permissions-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Strict-Transport-Security",
    "RateLimit",
    "RateLimit-Policy",
    "X-RateLimit-Limit",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Credentials",
    "Access-Control-Expose-Headers",
    "Vary",
)


def build(make_app: MakeApp, **config: Any) -> Flask:
    app = make_app(OPEN, TESTING=False, **config)
    blueprint, nested = Blueprint("b", "b"), Blueprint("n", "n")
    for owner in (blueprint, nested):
        owner.add_url_rule(f"/{owner.name}", "view", lambda: "view")
    blueprint.register_blueprint(nested, url_prefix="/b")
    app.register_blueprint(blueprint)

    @app.get("/async")
    async def async_view() -> str:
        return "async"

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[str]:
            yield "one"
            yield "two"

        return Response(chunks())

    @app.post("/upload")
    def upload() -> str:
        from flask import request

        return request.form.get("x", "")

    @app.get("/broken")
    def broken() -> str:
        raise ZeroDivisionError

    @app.get("/status/<int:code>")
    def status(code: int) -> Any:
        return make_response("", code)

    app.config["MAX_CONTENT_LENGTH"] = 10
    app.add_url_rule("/closed", "closed", require_auth(lambda: "closed"))
    return app


def assert_has_each_field_once(answer: Any) -> None:
    counted = Counter(name.title() for name in answer.headers.keys())  # noqa: SIM118
    for name in EVERYWHERE:
        assert counted[name.title()] == 1, (answer.status, name)
    assert "Origin" in [one.strip() for one in answer.headers["Vary"].split(",")]


@pytest.mark.parametrize("propagate", [None, True])
def test_every_kind_of_answer_carries_everything_once(
    make_app: MakeApp, propagate: bool | None
) -> None:
    app = build(make_app, PROPAGATE_EXCEPTIONS=propagate)
    client = app.test_client()
    cases = [
        ("GET", "/b", 200),
        ("GET", "/b/n", 200),
        ("GET", "/async", 200),
        ("GET", "/stream", 200),
        ("GET", "/static/none.css", 404),
        ("GET", "/nowhere", 404),
        ("DELETE", "/b", 405),
        ("OPTIONS", "/b", 200),
        ("HEAD", "/b", 200),
        ("GET", "/closed", 401),
        ("GET", "/broken", 500),
    ]
    for method, path, expected in cases:
        answer = client.open(
            path, method=method, headers={"Origin": ORIGIN}, base_url="https://api.example.com"
        )
        assert answer.status_code == expected, path
        assert_has_each_field_once(answer)
    answer = client.post(
        "/upload",
        data={"x": "y" * 100},
        headers={"Origin": ORIGIN},
        base_url="https://api.example.com",
    )
    assert answer.status_code == 413
    assert_has_each_field_once(answer)


def test_a_static_file_carries_everything_once_and_again_as_304(
    make_app: MakeApp, tmp_path: Path
) -> None:
    (tmp_path / "page.css").write_text("a {}")
    app = build(make_app)
    app.static_folder = str(tmp_path)
    client, sent = app.test_client(), {"headers": {"Origin": ORIGIN}}
    answer = client.get("/static/page.css", base_url="https://api.example.com", **sent)
    assert (answer.status_code, answer.text) == (200, "a {}")
    assert_has_each_field_once(answer)
    assert "no-store" not in answer.headers["Cache-Control"]
    answer.close()
    sent["headers"]["If-None-Match"] = answer.headers["ETag"]
    again = client.get("/static/page.css", base_url="https://api.example.com", **sent)
    assert again.status_code == 304
    assert_has_each_field_once(again)
    again.close()


@pytest.mark.parametrize(
    "code", [200, 201, 204, 206, 301, 304, 400, 404, 410, 418, 429, 500, 503, 599]
)
def test_every_status_gets_the_header_fields(make_app: MakeApp, code: int) -> None:
    client = build(make_app).test_client()
    answer = client.get(
        f"/status/{code}", headers={"Origin": ORIGIN}, base_url="https://api.example.com"
    )
    assert answer.status_code == code
    assert_has_each_field_once(answer)


def test_an_exception_that_leaves_flask_is_a_500_that_tells_nothing(make_app: MakeApp) -> None:
    app = build(make_app, PROPAGATE_EXCEPTIONS=True)
    answer = app.test_client().get("/broken")
    assert error_of(answer) == {
        "error": "Internal Server Error",
        "code": "INTERNAL_ERROR",
        "message": "Internal error",
    }
    app.debug = True
    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/broken")


def test_an_after_request_function_that_fails_does_not_lose_the_headers(
    make_app: MakeApp,
) -> None:
    app = build(make_app)

    @app.after_request
    def fail(response: Response) -> Response:
        raise ZeroDivisionError

    answer = app.test_client().get("/b", headers={"Origin": ORIGIN}, base_url="https://x.example")
    assert answer.status_code == 500
    assert_has_each_field_once(answer)


def test_an_app_whose_wsgi_app_was_replaced_gets_the_header_fields_all_the_same(app: Flask) -> None:
    app.add_url_rule("/x", "x", lambda: "x")
    app.wsgi_app = type(app).wsgi_app.__get__(app)  # type: ignore[method-assign]
    assert app.test_client().get("/x").headers.getlist("X-Frame-Options") == ["DENY"]


def test_headers_of_the_view_are_kept_and_not_doubled(app: Flask) -> None:
    @app.get("/x")
    def view() -> tuple[str, dict[str, str]]:
        return "x", {
            "content-security-policy": "default-src 'self'",
            "X-Frame-Options": "SAMEORIGIN",
        }

    headers = app.test_client().get("/x").headers
    assert headers.getlist("Content-Security-Policy") == ["default-src 'self'"]
    assert headers.getlist("X-Frame-Options") == ["SAMEORIGIN"]
    assert headers.getlist("X-Content-Type-Options") == ["nosniff"]


def test_cors_fields_of_the_view_are_replaced_by_the_policys(make_app: MakeApp) -> None:
    app = make_app(OPEN)

    @app.get("/x")
    def view() -> tuple[str, dict[str, str]]:
        return "x", {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": "true"}

    client = app.test_client()
    headers = client.get("/x", headers={"Origin": ORIGIN}).headers
    assert headers.getlist("Access-Control-Allow-Origin") == [ORIGIN]
    headers = client.get("/x", headers={"Origin": "https://evil.example"}).headers
    assert not [name for name in headers.keys() if name.startswith("Access-Control-")]  # noqa: SIM118


@pytest.mark.parametrize(
    "origin", [ORIGIN, "https://evil.example", "null", None, f"{ORIGIN}, https://evil.example"]
)
@pytest.mark.parametrize("path", ["/b", "/closed", "/nowhere", "/status/304", "/broken"])
def test_vary_names_the_origin_whether_it_is_allowed_denied_or_absent(
    make_app: MakeApp, origin: str | None, path: str
) -> None:
    headers = {} if origin is None else {"Origin": origin}
    answer = build(make_app).test_client().get(path, headers=headers)
    assert len(answer.headers.getlist("Vary")) == 1
    assert "Origin" in answer.headers["Vary"]
    allowed = answer.headers.get("Access-Control-Allow-Origin")
    assert allowed == (ORIGIN if origin == ORIGIN else None)


def test_a_vary_of_the_view_is_kept(make_app: MakeApp) -> None:
    app = make_app(OPEN, SECRET_KEY="k" * 40)

    @app.get("/x")
    def view() -> tuple[str, dict[str, str]]:
        session["a"] = 1
        return "x", {"Vary": "Accept, origin"}

    (vary,) = app.test_client().get("/x").headers.getlist("Vary")
    assert sorted(one.strip().lower() for one in vary.split(",")) == ["accept", "cookie", "origin"]


def test_hsts_only_over_https_and_only_as_a_trusted_proxy_says(make_app: MakeApp) -> None:
    def sent(settings: dict[str, Any], peer: str, **headers: str) -> bool:
        app = make_app(settings)
        answer = app.test_client().get("/", headers=headers, environ_base={"REMOTE_ADDR": peer})
        return "Strict-Transport-Security" in answer.headers

    trusting = {"server": {"trusted_proxies": ["10.0.0.1"]}}
    https = {"X-Forwarded-Proto": "https"}
    assert not sent({}, "10.0.0.1")
    assert not sent({}, "10.0.0.1", **https)
    assert sent(trusting, "10.0.0.1", **https)
    assert not sent(trusting, "10.0.0.2", **https)
    assert not sent(trusting, "10.0.0.1", **{"X-Forwarded-Proto": "https, http"})
    secure = make_app({}).test_client().get("/", base_url="https://x.example")
    assert "Strict-Transport-Security" in secure.headers
    development = make_app({"development": {"enabled": True}}).test_client()
    answer = development.get("/", base_url="https://x.example")
    assert "Strict-Transport-Security" not in answer.headers


def test_a_nonce_stands_in_the_policy_and_differs_per_answer(make_app: MakeApp) -> None:
    app = make_app({"security": {"headers": {"preset": "web"}}})
    app.add_url_rule("/x", "x", lambda: csp_nonce() + csp_nonce())
    app.add_url_rule("/plain", "plain", lambda: "plain")
    client = app.test_client()
    seen = set()
    for _ in range(3):
        answer = client.get("/x")
        nonce = answer.text[: len(answer.text) // 2]
        assert answer.text == nonce * 2
        assert f"script-src 'self' 'nonce-{nonce}'" in answer.headers["Content-Security-Policy"]
        assert f"style-src 'self' 'nonce-{nonce}'" in answer.headers["Content-Security-Policy"]
        seen.add(nonce)
    assert len(seen) == 3
    assert "nonce" not in client.get("/plain").headers["Content-Security-Policy"]


CACHING = [
    (None, "no-store"),
    ("max-age=60", "max-age=60, private"),
    ("public, max-age=60, s-maxage=90", "max-age=60, private"),
    ("private, max-age=60", "private, max-age=60"),
    ("no-store", "no-store"),
    ('private="Set-Cookie", max-age=5', None),
]


@pytest.mark.parametrize(("own", "completed"), CACHING)
def test_an_authenticated_answer_never_lands_in_a_shared_cache(
    app: Flask, own: str | None, completed: str | None
) -> None:
    headers = {} if own is None else {"Cache-Control": own}
    app.add_url_rule("/x", "x", require_auth(lambda: ("x", headers)))
    app.add_url_rule("/same", "same", cacheable(require_auth(lambda: ("x", headers))))
    app.add_url_rule("/open", "open", public(lambda: ("x", headers)))
    answer = client_as(app, "ann").get("/x")
    caching = answer.headers["Cache-Control"]
    assert completed is None or caching == completed
    assert "no-store" in caching or "private" in [one.strip() for one in caching.split(",")]
    vary = {one.strip() for one in answer.headers["Vary"].split(",")}
    assert vary >= {"Authorization", "Cookie", "X-API-Key"}
    assert client_as(app, "ann").get("/same").headers.get("Cache-Control") == own
    assert app.test_client().get("/open").headers.get("Cache-Control") == own


def test_refusals_are_never_stored_whatever_a_handler_says(make_app: MakeApp) -> None:
    app = make_app(OPEN)
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))

    @app.errorhandler(401)
    def handler(error: HTTPException) -> Any:
        return {"mine": True}, 401, {"Cache-Control": "public, max-age=9"}

    answer = app.test_client().get("/x")
    assert answer.json == {"mine": True}
    assert answer.headers.getlist("Cache-Control") == ["no-store"]
    assert answer.headers.getlist("WWW-Authenticate") == CHALLENGES


def test_every_401_of_the_app_itself_is_challenged(app: Flask) -> None:
    app.add_url_rule("/x", "x", lambda: abort(401))
    answer = app.test_client().get("/x")
    assert answer.headers.getlist("WWW-Authenticate") == CHALLENGES
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("key", [401, HTTPException])
def test_the_apps_handlers_for_status_and_class_decide_the_body(app: Flask, key: Any) -> None:
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    app.register_error_handler(key, lambda error: ({"handled": error.code}, error.code))
    answer = app.test_client().get("/x")
    assert (answer.status_code, answer.json) == (401, {"handled": 401})


def test_a_catch_all_for_exceptions_does_not_decide(app: Flask) -> None:
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    app.register_error_handler(Exception, lambda error: ("caught", 500))
    answer = app.test_client().get("/x")
    assert answer.status_code == 401
    assert answer.json is not None
    assert answer.json["code"] == "AUTH_REQUIRED"


def test_a_blueprints_catch_all_cannot_turn_a_refusal_into_a_server_error(app: Flask) -> None:
    blueprint = Blueprint("b", "b")
    blueprint.add_url_rule("/x", "x", require_auth(lambda: "x"))
    blueprint.register_error_handler(Exception, lambda error: ("caught", 500))
    app.register_blueprint(blueprint)
    answer = app.test_client().get("/x")
    assert answer.status_code == 401
    assert answer.json is not None
    assert answer.json["code"] == "AUTH_REQUIRED"
    assert answer.headers.getlist("WWW-Authenticate") == CHALLENGES
    assert int(answer.headers["Content-Length"]) == len(answer.data)
    assert app.test_client().head("/x").data == b""


def test_refusals_survive_trapped_http_exceptions(make_app: MakeApp) -> None:
    app = make_app(OPEN, TRAP_HTTP_EXCEPTIONS=True)
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    client = app.test_client()
    assert client.get("/x").status_code == 401
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    assert client.options("/x", headers=preflight).status_code == 204


@pytest.mark.parametrize(
    ("accept", "problem"),
    [
        ("application/problem+json", True),
        ("text/html, application/problem+json;q=0.1", True),
        ("application/problem+json;q=0", False),
        ("application/json", False),
        ("*/*", False),
        ("\xff;;;q=problem+json", False),
        ("Application/Problem+JSON", True),
        ("application/json,application/problem+json ; charset=utf-8 ;q=1.000", True),
        ("application/problem+json;Q=0.000", False),
        ("application/problem+json;q=0.", False),
        ("application/problem+json;q=2", False),
        ("application/problem+json;q=", False),
        ("application/problem+json;q=0.0001", False),  # three digits at most
        ("application/problem+json;q=0.001", True),
        ("application/problem+jsonx, xapplication/problem+json", False),
        ("application/problem+json" + " " * 15_000, True),
        ("application/json," * 1_000 + "application/problem+json", False),  # too long to be read
    ],
)
def test_errors_come_as_problems_where_the_client_asks(
    app: Flask, accept: str, problem: bool
) -> None:
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    answer = app.test_client().get("/x", headers={"Accept": accept})
    assert "Accept" in answer.headers["Vary"]
    body = error_of(answer)
    if problem:
        assert answer.mimetype == "application/problem+json"
        assert body == {
            "type": "about:blank",
            "title": "Unauthorized",
            "status": 401,
            "detail": "Authentication required",
            "code": "AUTH_REQUIRED",
        }
    else:
        assert answer.mimetype == "application/json"
        assert body["error"] == "Unauthorized"


def test_the_settings_choose_problems_for_everybody(make_app: MakeApp) -> None:
    limited = {"rate_limit": {"enabled": True, "requests_per_minute": 1, "burst": 1}}
    app = make_app({"security": {"errors": {"format": "problem"}}, "performance": limited})
    client = app.test_client()
    client.get("/")
    body = json.loads(client.get("/").data)
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert body["violated-policies"] == ["default"]


def test_templates_can_use_the_nonce(app: Flask) -> None:
    app.jinja_env.globals["csp_nonce"] = csp_nonce
    app.add_url_rule("/x", "x", lambda: render_template_string("{{ csp_nonce() }}"))
    answer = app.test_client().get("/x")
    assert f"'nonce-{answer.text}'" in answer.headers["Content-Security-Policy"]


def test_an_error_raised_by_the_view_itself_is_rendered_with_its_challenge(app: Flask) -> None:
    def login() -> str:
        raise InvalidToken

    app.add_url_rule("/x", "x", login)
    answer = app.test_client().get("/x")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="m9m", error="invalid_token"'


def test_templates_know_the_nonce_without_being_told(app: Flask) -> None:
    app.add_url_rule("/x", "x", lambda: render_template_string("{{ csp_nonce() }}"))
    answer = app.test_client().get("/x")
    assert f"'nonce-{answer.text}'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("fails", [True, False])
def test_a_mounted_app_that_is_a_generator_gets_the_header_fields_whatever_it_does(
    make_app: MakeApp, fails: bool
) -> None:
    app, closed = make_app(OPEN, TESTING=False), []

    def mounted(environ: Any, start_response: Any) -> Iterator[bytes]:
        try:
            if fails:
                raise ZeroDivisionError
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield b"one"
            yield b"two"
        finally:
            closed.append(True)

    app.wsgi_app._wsgi_app = DispatcherMiddleware(  # type: ignore[attr-defined]
        app.wsgi_app._wsgi_app,  # type: ignore[attr-defined]
        {"/mounted": mounted},
    )
    sent = {"headers": {"Origin": ORIGIN}, "base_url": "https://api.example.com"}
    answer = app.test_client().get("/mounted/", **sent)  # type: ignore[arg-type]
    assert answer.status_code == (500 if fails else 200)
    assert answer.headers.getlist("X-Frame-Options") == ["DENY"]
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    if not fails:
        assert answer.data == b"onetwo"
    answer.close()
    assert closed == [True]
