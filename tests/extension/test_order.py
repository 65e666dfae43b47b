"""The way of a request: one fixed order, whatever else hooks in."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, abort, request
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_m9m import M9M, SettingsError, get_identity, require_auth
from flask_m9m.testing import Clock, client_as, make_settings
from tests.conftest import MakeApp

ORIGIN = "https://app.example.com"
BASIC = "{enabled: true, username: ann, password: correct horse battery}"
CORS = {"security": {"cors": {"allowed_origins": [ORIGIN], "allow_credentials": True}}}
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}
LIMIT = {"performance": {"rate_limit": {"enabled": True, "requests_per_minute": 60, "burst": 3}}}
ONE_A_MINUTE = {
    "performance": {"rate_limit": {"enabled": True, "requests_per_minute": 1, "burst": 1}}
}


def add_items(app: Flask) -> None:
    @app.get("/items")
    @require_auth
    def items() -> str:
        return "items"


def test_a_preflight_needs_no_token_and_uses_up_no_limit(make_app: MakeApp) -> None:
    app = make_app({**CORS, **ONE_A_MINUTE})
    add_items(app)
    client = app.test_client()
    for _ in range(5):
        answer = client.options("/items", headers=PREFLIGHT)
        assert answer.status_code == 204
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "RateLimit" not in answer.headers
    assert client.get("/items").status_code == 401
    assert client.get("/items").status_code == 429
    assert client.options("/items", headers=PREFLIGHT).status_code == 204


def test_a_preflight_never_runs_the_view_even_where_it_handles_options(make_app: MakeApp) -> None:
    app, ran = make_app(CORS), []

    @app.route("/items", methods=["GET", "OPTIONS"])
    @require_auth
    def items() -> str:
        ran.append(1)
        return "items"

    client = app.test_client()
    assert client.options("/items", headers=PREFLIGHT).status_code == 204
    assert not ran
    assert client.options("/items").status_code == 401
    assert client_as(app, "ann").options("/items").status_code == 200
    assert ran == [1]


def test_a_preflight_to_an_unknown_path_lets_the_browser_read_the_real_404(
    make_app: MakeApp,
) -> None:
    answer = make_app(CORS).test_client().options("/nowhere", headers=PREFLIGHT)
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Methods"].split(", ")[0] == "GET"


def test_a_missing_trailing_slash_never_redirects_a_preflight(make_app: MakeApp) -> None:
    app = make_app(CORS)

    @app.get("/folder/")
    @require_auth
    def folder() -> str:
        return "folder"

    answer = app.test_client().options("/folder", headers=PREFLIGHT)
    assert answer.status_code == 204
    assert "POST" not in answer.headers["Access-Control-Allow-Methods"]
    assert app.test_client().get("/folder").status_code == 308


def test_the_methods_of_a_preflight_are_those_of_the_route(make_app: MakeApp) -> None:
    app = make_app(CORS)
    add_items(app)
    app.add_url_rule("/items", "create", lambda: "", methods=["POST"])
    answer = app.test_client().options("/items", headers=PREFLIGHT)
    methods = {one.strip() for one in answer.headers["Access-Control-Allow-Methods"].split(",")}
    assert methods == {"GET", "HEAD", "POST"}
    refused = app.test_client().options(
        "/items", headers={**PREFLIGHT, "Access-Control-Request-Method": "DELETE"}
    )
    assert refused.status_code == 403
    assert refused.json is not None
    assert refused.json["code"] == "CORS_REFUSED"
    assert not [name for name in refused.headers if name[0].startswith("Access-Control-")]


def test_unknown_paths_and_methods_and_failed_logins_count_against_the_address(
    make_app: MakeApp,
) -> None:
    app = make_app(LIMIT)
    add_items(app)
    client = app.test_client()
    statuses = [
        client.get("/nowhere").status_code,
        client.post("/items").status_code,
        client.get("/items", headers={"Authorization": "Bearer x"}).status_code,
        client.get("/items").status_code,
    ]
    assert statuses == [404, 405, 401, 429]


@pytest.mark.parametrize("hook", ["url_value_preprocessor", "before_request"])
@pytest.mark.parametrize("first", [True, False])
def test_another_extension_that_aborts_neither_stops_preflights_nor_counting(
    hook: str, first: bool
) -> None:
    app = Flask("app")
    app.testing = True
    settings = make_settings({**CORS, **LIMIT})

    def abort_early(*_: object) -> None:
        abort(418)

    if not first:
        M9M(app, settings=settings)
    getattr(app, hook)(abort_early)
    if first:
        M9M(app, settings=settings)
    hooks = app.url_value_preprocessors if hook.startswith("url") else app.before_request_funcs
    hooks[None].insert(0, abort_early)  # type: ignore[arg-type]
    add_items(app)
    client = app.test_client()
    assert client.options("/items", headers=PREFLIGHT).status_code == 204
    expected = 401 if hook == "before_request" else 418
    assert [client.get("/items").status_code for _ in range(4)] == [expected] * 3 + [429]


def test_extensions_in_any_order_of_registration_get_the_same_answers() -> None:
    def first(app: Flask) -> None:
        M9M(app, settings=make_settings({**CORS, **LIMIT}), clock=Clock())

    def session_reader(app: Flask) -> None:
        app.before_request(lambda: None)

    def noisy(app: Flask) -> None:
        @app.after_request
        def add(response: Any) -> Any:
            response.headers["Access-Control-Allow-Origin"] = "https://evil.example"
            response.headers["Vary"] = "Cookie"
            return response

    def other(app: Flask) -> None:
        add_items(app)

    answers = []
    for order in itertools.permutations([first, session_reader, noisy, other]):
        app = Flask("app")
        app.testing = True
        for register in order:
            register(app)
        answer = app.test_client().get("/items", headers={"Origin": ORIGIN})
        del answer.headers["X-Request-ID"]
        answers.append((answer.status_code, sorted(answer.headers.to_wsgi_list())))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 401


def test_one_m9m_keeps_two_apps_apart() -> None:
    m9m = M9M()
    apps = []
    for origin, limit in ((ORIGIN, 1), ("https://other.example", 60)):
        app = Flask(f"app-{limit}")
        app.testing = True
        settings = make_settings(
            {
                "security": {"cors": {"allowed_origins": [origin]}},
                "performance": {
                    "rate_limit": {"enabled": True, "requests_per_minute": limit, "burst": limit}
                },
            }
        )
        m9m.init_app(app, settings=settings)
        add_items(app)
        apps.append(app)
    one, other = (client_as(app, "ann") for app in apps)
    assert (
        one.get("/items", headers={"Origin": ORIGIN}).headers["RateLimit"] == '"default";r=0;t=60'
    )
    assert one.get("/items").status_code == 429
    answer = other.get("/items", headers={"Origin": ORIGIN})
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
    stranger = apps[1].test_client()
    token = one.environ_base["HTTP_AUTHORIZATION"]
    assert stranger.get("/items", headers={"Authorization": token}).status_code == 401
    with apps[0].app_context():
        first = m9m.settings
    with apps[1].app_context():
        assert m9m.settings is not first


def test_a_second_m9m_on_one_app_is_refused(app: Flask) -> None:
    with pytest.raises(RuntimeError, match="already has an M9M"):
        M9M(app, settings=make_settings())


def test_networks_outside_the_allowed_ones_are_refused_before_anything_else(
    make_app: MakeApp,
) -> None:
    app = make_app({**CORS, "server": {"allowed_networks": ["10.0.0.0/8", "2001:db8::/32"]}})
    add_items(app)
    client = app.test_client()
    for address, status in (
        ("10.1.2.3", 401),
        ("::ffff:10.1.2.3", 401),
        ("2001:db8::1", 401),
        ("11.0.0.1", 403),
        ("garbage", 403),
        ("", 403),
    ):
        answer = client.get("/items", environ_base={"REMOTE_ADDR": address})
        assert answer.status_code == status, address
    refused = client.options("/items", headers=PREFLIGHT, environ_base={"REMOTE_ADDR": "1.1.1.1"})
    assert refused.json is not None
    assert refused.json["code"] == "ADDRESS_NOT_ALLOWED"


def test_a_client_whose_address_is_unreadable_is_in_no_allowed_network(make_app: MakeApp) -> None:
    """Its proxy's address stands for it in limits, and must not open the networks."""
    server = {"trusted_proxies": ["10.0.0.1"], "allowed_networks": ["10.0.0.0/8", "192.0.2.0/24"]}
    app = make_app({"server": server})
    app.add_url_rule("/x", "x", lambda: "x")
    client, proxy = app.test_client(), {"REMOTE_ADDR": "10.0.0.1"}
    for forwarded, status in (
        ("192.0.2.7", 200),
        ("198.51.100.7", 403),
        ("unknown", 403),
        ("192.0.2.7, unknown", 403),
        ("", 403),
    ):
        answer = client.get("/x", headers={"X-Forwarded-For": forwarded}, environ_base=proxy)
        assert answer.status_code == status, forwarded
    assert client.get("/x", environ_base=proxy).status_code == 200  # the proxy itself


@pytest.mark.parametrize("policy", ["redirect", "refuse"])
def test_plain_http_is_redirected_or_refused_as_the_settings_say(
    make_app: MakeApp, policy: str
) -> None:
    app = make_app({"server": {"https": policy}})
    app.add_url_rule("/x", "x", lambda: "x", methods=["GET", "POST"])
    client = app.test_client()
    answer = client.get("/x?a=b", base_url="http://api.example.com")
    if policy == "redirect":
        assert answer.status_code == 308
        assert answer.headers["Location"] == "https://api.example.com/x?a=b"
    else:
        assert answer.status_code == 403
    assert client.post("/x").status_code == 403
    assert client.get("/x", base_url="https://api.example.com").status_code == 200


def test_a_mounted_app_gets_the_header_fields_once_and_its_own_guard_wins() -> None:
    outer, inner, plain = Flask("outer"), Flask("inner"), Flask("plain")
    for app in (outer, inner, plain):
        app.testing = True
        app.add_url_rule("/", "index", lambda: "index")
    M9M(inner, settings=make_settings({"security": {"headers": {"x_frame_options": "SAMEORIGIN"}}}))
    outer.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        outer.wsgi_app, {"/inner": inner, "/plain": plain}
    )
    M9M(outer, settings=make_settings())
    client = outer.test_client()
    for path, frame in (("/", "DENY"), ("/plain/", "DENY"), ("/inner/", "SAMEORIGIN")):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers.getlist("X-Frame-Options") == [frame]
        assert len(answer.headers.getlist("Content-Security-Policy")) == 1


def test_a_nested_blueprint_under_a_protected_one_is_protected(make_app: MakeApp) -> None:
    app = Flask("app")
    app.testing = True
    m9m = M9M(app, settings=make_settings())
    outer, inner = Blueprint("outer", "outer"), Blueprint("inner", "inner")
    inner.add_url_rule("/x", "x", lambda: "x")
    m9m.protect(outer, require_auth(roles="admin"))
    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    app.register_blueprint(outer, url_prefix="/again", name="again")
    for path in ("/outer/inner/x", "/again/inner/x"):
        assert app.test_client().get(path).status_code == 401
        assert client_as(app, "ann").get(path).status_code == 403
        assert client_as(app, "ann", roles=["admin"]).get(path).status_code == 200


def test_what_reading_the_settings_brought_to_light_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("{queue: {type: redis}, security: {basic_auth: " + BASIC + "}}")
    with caplog.at_level("INFO", logger="flask_m9m"):
        M9M(Flask("app"), settings=config)
    assert [message for message in caplog.messages if str(config) in message]
    assert [message for message in caplog.messages if "queue" in message]
    assert "correct horse" not in caplog.text


def test_a_secret_that_also_signs_sessions_stops_the_start() -> None:
    settings = make_settings()
    secret = settings.security.jwt.secret
    assert secret is not None
    app = Flask("app")
    app.secret_key = secret.get_secret_value()
    with pytest.raises(SettingsError, match=r"app\.secret_key"):
        M9M(app, settings=settings)
    late = Flask("late")
    late.testing = True
    M9M(late, settings=settings)
    late.secret_key = secret.get_secret_value()
    with pytest.raises(SettingsError, match=r"app\.secret_key"):
        late.test_client().get("/")


def test_debug_alone_opens_no_origin_and_needs_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    app = Flask("app", instance_path=str(tmp_path))
    assert app.debug
    M9M(app, settings={})
    add_items(app)
    client = app.test_client()
    answer = client.get("/items", headers={"Origin": ORIGIN}, base_url="https://api.example.com")
    assert answer.status_code == 401
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
    assert "Strict-Transport-Security" in answer.headers
    assert client.options("/items", headers=PREFLIGHT).status_code == 403
    assert client_as(app, "ann").get("/items").status_code == 200


@pytest.mark.parametrize("same", [True, False])
def test_asking_another_app_with_the_same_environ_changes_nothing_for_this_one(
    make_app: MakeApp, same: bool
) -> None:
    def ask(app: Flask) -> None:
        list(
            app.wsgi_app(request.environ, lambda status, headers, exc_info=None: lambda data: None)
        )

    app = make_app()
    other = app if same else make_app()
    for one in {app, other}:
        one.add_url_rule("/who", "who", require_auth(optional=True)(lambda: "who"))

    @app.get("/secret")
    @require_auth
    def secret() -> Any:
        if "asked" not in request.environ:
            request.environ["asked"] = True
            ask(other)
        identity = get_identity()
        assert identity is not None
        return f"secret of {identity.subject}", {"Cache-Control": "public, max-age=60"}

    @app.get("/open")
    def opened() -> str:
        ask(other)
        return str(get_identity())

    other.view_functions.setdefault("secret", lambda: "other")
    answer = client_as(app, "ann").get("/secret")
    assert answer.text == "secret of ann"
    assert answer.headers["Cache-Control"] == "max-age=60, private"
    assert "Authorization" in answer.headers["Vary"]
    assert answer.headers.getlist("X-Frame-Options") == ["DENY"]
    if not same:
        assert client_as(other, "bob").get("/who").status_code == 200
        token = client_as(other, "bob").environ_base["HTTP_AUTHORIZATION"]
        strange = app.test_client().get("/open", headers={"Authorization": token})
        assert strange.text == "None"


def test_requests_made_of_another_ones_environ_prove_themselves(app: Flask) -> None:
    add_items(app)

    @app.post("/batch")
    def batch() -> list[int]:
        statuses = []
        for authorization in request.get_json():
            environ = {
                **request.environ,
                "PATH_INFO": "/items",
                "REQUEST_METHOD": "GET",
                "HTTP_AUTHORIZATION": authorization,
            }
            with app.request_context(environ):
                statuses.append(app.full_dispatch_request().status_code)
        return statuses

    good = client_as(app, "ann").environ_base["HTTP_AUTHORIZATION"]
    answer = app.test_client().post("/batch", json=["Bearer bad", good, "Bearer bad"])
    assert answer.json == [401, 200, 401]


@pytest.mark.parametrize("host", ["", "a b", "x@y", "x/y", "h:99999", "\xe4", "..", "x" * 300])
def test_no_redirect_to_https_leads_to_a_host_that_is_none(make_app: MakeApp, host: str) -> None:
    app = make_app({"server": {"https": "redirect"}})
    client = app.test_client(use_cookies=False)
    answer = client.get("//evil.example/", environ_overrides={"HTTP_HOST": host})
    assert answer.status_code in (400, 403)
    assert "Location" not in answer.headers


@pytest.mark.skipif("TRUSTED_HOSTS" not in Flask("x").config, reason="new in Flask 3.1")
def test_no_redirect_leads_to_a_host_that_the_app_does_not_answer_to(make_app: MakeApp) -> None:
    app = make_app({"server": {"https": "redirect"}}, TRUSTED_HOSTS=["good.example"])
    app.add_url_rule("/x", "x", lambda: "x")
    client = app.test_client()
    assert client.get("/x", base_url="http://evil.example").status_code == 400
    answer = client.get("/x", base_url="http://good.example")
    assert answer.headers["Location"] == "https://good.example/x"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_preflight_is_204_whatever_becomes_of_exceptions() -> None:
    class Eager(Flask):
        def handle_user_exception(self, e: Exception) -> Any:
            return "mine", 500

    trapping, eager = Flask("trapping"), Eager("eager")
    trapping.config["TRAP_HTTP_EXCEPTIONS"] = True
    trapping.register_error_handler(HTTPException, lambda error: ("mine", 200))
    for app in (trapping, eager):
        M9M(app, settings=make_settings(CORS))
        add_items(app)
        answer = app.test_client().options("/items", headers=PREFLIGHT)
        assert (answer.status_code, answer.data) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
