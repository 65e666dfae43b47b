"""Whatever answers a request is inside: other rules, failures before the hooks, mounted apps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flask import Blueprint, Flask, Request, abort, current_app, request
from flask.sessions import SecureCookieSessionInterface
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter
from werkzeug.test import run_wsgi_app

from flask_m9m import (
    M9M,
    Identity,
    current_identity,
    public,
    rate_limit,
    require_auth,
    require_signed_url,
)
from flask_m9m.cli.doctor.routes import outer_middleware
from flask_m9m.cli.doctor.subject import Subject
from flask_m9m.errors import SettingsError
from flask_m9m.testing import client_as, make_settings
from tests.bodies import error_of

ORIGIN = "https://one.example.com"
CLOSED = {"security": {"default_access": "authenticated"}}
LIMITED = {"performance": {"rate_limit": {"enabled": True, "requests_per_minute": 1, "burst": 1}}}
FENCED = {"server": {"allowed_networks": ["10.0.0.0/8"]}}


def secured(settings: dict[str, Any] | None = None) -> Flask:
    app = Flask("app")
    M9M(app, settings=make_settings(settings or {}))
    return app


# Another rule than the hooks saw


def rerouted(mark: Callable[..., Any], *, protect: bool = False) -> Flask:
    app = Flask("app")
    m9m = M9M(app, settings=make_settings())
    admin = Blueprint("admin", "admin")

    def secret() -> str:
        return "secret"

    admin.add_url_rule("/secret", "secret", secret if protect else mark(secret))
    if protect:
        m9m.protect(admin, mark)
    app.register_blueprint(admin)
    app.add_url_rule("/open", "open", public(lambda: "open"))
    app.add_url_rule("/dispatching", "dispatching", public(dispatch_secret))

    @app.before_request
    def change_rule() -> None:
        if "rule" in request.args:
            (request.url_rule,) = app.url_map.iter_rules(request.args["rule"])

    return app


def dispatch_secret() -> Any:
    authorization = request.headers.get("Authorization")
    headers = {"Authorization": authorization} if authorization else {}
    with current_app.test_request_context("/secret", headers=headers):
        return current_app.dispatch_request()


@pytest.mark.parametrize("protect", [True, False])
@pytest.mark.parametrize("path", ["/secret", "/open?rule=admin.secret", "/dispatching"])
def test_the_rule_that_is_dispatched_decides(path: str, protect: bool) -> None:
    app = rerouted(require_auth(roles="admin"), protect=protect)
    clients = app.test_client(), client_as(app, "ann"), client_as(app, "eve", roles=["admin"])
    found = [client.get(path).status_code for client in clients]
    assert found == [401, 403, 200]


@pytest.mark.parametrize("protect", [True, False])
def test_a_rerouted_request_is_counted_once(protect: bool) -> None:
    app = rerouted(rate_limit("2/hour", burst=2), protect=protect)
    client = app.test_client()
    found = [client.get("/open?rule=admin.secret").status_code for _ in range(3)]
    assert found == [200, 200, 429]


def test_a_request_rerouted_to_an_open_route_is_still_held_to_its_own(app: Flask) -> None:
    app = rerouted(require_auth)
    assert app.test_client().get("/secret?rule=open").status_code == 401
    assert app.test_client().get("/open?rule=open").text == "open"


def test_a_nested_mark_of_another_scheme_does_not_replace_the_caller() -> None:
    app, seen = Flask("app"), []
    m9m = M9M(app, settings=make_settings())
    m9m.authenticator("badge")(lambda: Identity("guard", "badge"))

    @require_auth(schemes="badge")
    def nested() -> str:
        return "nested"

    @app.get("/x")
    @require_auth(schemes="bearer")
    def view() -> str:
        try:
            return nested()
        finally:
            seen.append(current_identity.subject)

    assert client_as(app, "ann").get("/x").status_code == 401
    assert seen == ["ann"]


# Failures before the hooks


class Failing(BaseConverter):
    def to_python(self, value: str) -> str:
        raise KeyError(value)


class FailingSessions(SecureCookieSessionInterface):
    def __init__(self, fail: Callable[[], Any]) -> None:
        self.fail = fail

    def open_session(self, app: Flask, request: Request) -> Any:
        return self.fail()


def failing(kind: str, settings: dict[str, Any]) -> Flask:
    app = secured(settings)
    app.testing = False
    app.url_map.converters["failing"] = Failing
    app.add_url_rule("/<failing:x>" if kind == "converter" else "/x", "x", lambda x="": "x")
    if kind == "session":
        app.session_interface = FailingSessions(lambda: {}["session"])
    if kind == "session aborting":
        app.session_interface = FailingSessions(lambda: abort(503))
    return app


@pytest.mark.parametrize("kind", ["converter", "session", "session aborting"])
@pytest.mark.parametrize(
    ("settings", "found"), [({}, [500, 500]), (LIMITED, [500, 429]), (FENCED, [403, 403])]
)
def test_a_failure_before_the_hooks_is_answered_after_networks_and_limits(
    kind: str, settings: dict[str, Any], found: list[int]
) -> None:
    client = failing(kind, settings).test_client()
    answers = [client.get("/x") for _ in found]
    assert [answer.status_code for answer in answers] == found
    assert all("X-Content-Type-Options" in answer.headers for answer in answers)
    refused = [answer for answer in answers if answer.status_code != 500]
    assert all(error_of(answer) for answer in refused)


# Error handlers


@pytest.mark.parametrize("handled", [404, Exception])
def test_an_error_handler_that_calls_a_guarded_view_is_refused_as_the_view(handled: Any) -> None:
    app = secured()
    app.testing = False

    @require_auth
    def report() -> str:
        return "secret"

    app.register_error_handler(handled, lambda error: report())
    app.add_url_rule("/fails", "fails", lambda: 1 / 0)
    for path in ("/missing", "/fails")[: 1 if handled == 404 else 2]:
        assert app.test_client().get(path).status_code == 401
        assert client_as(app, "ann").get(path).text == "secret"


def test_a_handler_of_refusals_that_calls_a_guarded_view_does_not_run_for_ever() -> None:
    app = secured()
    app.testing = False

    @require_auth
    def report() -> str:
        return "secret"

    app.register_error_handler(401, lambda error: report())
    app.register_error_handler(404, lambda error: report())
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    for path in ("/x", "/missing"):
        assert app.test_client().get(path).status_code == 401


# Mounted apps


def tool(environ: Any, start_response: Any) -> Iterable[bytes]:
    tool_calls.append(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"tool"]


tool_calls: list[str] = []


def dispatching(app: Flask) -> Any:
    return DispatcherMiddleware(app.wsgi_app, {"/tool": tool})


def by_function(app: Flask) -> Any:
    flask = app.wsgi_app
    return lambda environ, start: (
        tool(environ, start) if environ["PATH_INFO"].startswith("/tool") else flask(environ, start)
    )


def mounting(mount: Callable[[Flask], Any], settings: dict[str, Any]) -> Flask:
    tool_calls.clear()
    app = Flask("app")
    app.wsgi_app = mount(app)  # type: ignore[method-assign]
    M9M(app, settings=make_settings(settings))
    app.add_url_rule("/x", "x", public(lambda: "x"))
    return app


@pytest.mark.parametrize("mount", [dispatching, by_function])
def test_a_mounted_app_is_behind_networks_and_the_general_limit(mount: Any) -> None:
    client = mounting(mount, FENCED).test_client()
    assert [client.get(path).status_code for path in ("/tool", "/x", "/none")] == [403] * 3
    client = mounting(mount, LIMITED).test_client()
    assert [client.get("/tool/a").status_code for _ in range(3)] == [200, 429, 429]
    assert len(tool_calls) == 1


@pytest.mark.parametrize("mount", [dispatching, by_function])
def test_a_mounted_app_needs_a_credential_where_the_default_is_closed(mount: Any) -> None:
    app = mounting(mount, CLOSED)
    stranger, ann = app.test_client(), client_as(app, "ann")
    for method in ("GET", "POST", "OPTIONS", "TRACE"):
        answer = stranger.open("/tool/x", method=method)
        assert answer.status_code == 401
        assert "X-Content-Type-Options" in answer.headers
    assert tool_calls == []
    assert ann.get("/tool/x").text == "tool"
    assert stranger.get("/x").text == "x"
    assert mounting(mount, {}).test_client().get("/tool").text == "tool"


@pytest.mark.parametrize("mount", [dispatching, by_function])
def test_a_mounted_app_at_the_path_of_a_route_answers_strangers_nothing(mount: Any) -> None:
    app = mounting(mount, CLOSED)
    app.add_url_rule("/<path:anything>", "anything", public(lambda anything: "anything"))
    answer = app.test_client().get("/tool/x")
    assert (answer.status_code, error_of(answer)["code"]) == (401, "AUTH_REQUIRED")
    assert client_as(app, "ann").get("/tool/x").text == "tool"
    assert app.test_client().get("/other").text == "anything"


@pytest.mark.parametrize("access", ["public", "authenticated"])
def test_a_preflight_never_gets_past_the_guard_of_a_closed_mount(access: str) -> None:
    settings = {"security": {"default_access": access, "cors": {"allowed_origins": [ORIGIN]}}}
    client = mounting(dispatching, settings).test_client()
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    found = [client.options(path, headers=headers) for path in ("/tool", "/none", "/x")]
    assert [answer.status_code for answer in found[1:]] == [204, 204]
    assert found[0].text == ("tool" if access == "public" else "")
    assert all(answer.headers["Access-Control-Allow-Origin"] == ORIGIN for answer in found)


def test_a_request_for_neither_is_counted_once() -> None:
    settings = {"performance": {"rate_limit": {**LIMITED["performance"]["rate_limit"], "burst": 4}}}
    client = mounting(dispatching, settings).test_client()
    assert [client.get("/none").status_code for _ in range(5)] == [404] * 4 + [429]


def test_a_proxy_fix_inside_mounts_nothing() -> None:
    app = mounting(lambda app: ProxyFix(app.wsgi_app), CLOSED)
    assert app.test_client().get("/none").status_code == 404


def stripping(app: Flask) -> Any:
    """Strip a prefix off the path, as apps behind a proxy do."""
    flask = app.wsgi_app

    def strip(environ: Any, start_response: Any) -> Any:
        environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/api")
        return flask(environ, start_response)

    return strip


def retrying(app: Flask) -> Any:
    """Run the app again without the prefix where it answered 404."""
    flask = app.wsgi_app

    def retry(environ: Any, start_response: Any) -> Any:
        _, status, _ = run_wsgi_app(flask, environ)
        if status.startswith("404"):
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/api")
        return flask(environ, start_response)

    return retry


@pytest.mark.parametrize("default", [{}, CLOSED])
@pytest.mark.parametrize("mount", [stripping, retrying])
def test_middleware_inside_that_changes_the_path_opens_no_route(
    mount: Any, default: dict[str, Any]
) -> None:
    app = mounting(mount, default)
    require_auth(roles="admin")(app.get("/above")(lambda: "secret"))
    ann, eve = client_as(app, "ann"), client_as(app, "eve", roles=["admin"])
    for path in ("/above", "/api/above"):
        found = [client.get(path).status_code for client in (app.test_client(), ann, eve)]
        assert found == [401, 403, 200]


def test_the_doctors_remedy_for_a_mount_leads_to_a_guarded_one() -> None:
    app = secured(CLOSED)
    app.wsgi_app = dispatching(app)  # type: ignore[method-assign]
    (finding,) = outer_middleware.examine(Subject(app.extensions["m9m"]))
    assert "wrap it before M9M(app)" in finding.fix
    assert app.test_client().get("/tool").status_code == 200
    assert mounting(dispatching, CLOSED).test_client().get("/tool").status_code == 401


# Hosts


def test_under_host_matching_our_own_routes_answer_on_every_host() -> None:
    app = Flask("app", host_matching=True, static_host="a.example.com")
    settings = {"api": {"enabled": True}, "metrics": {"enabled": True}}
    m9m = M9M(app, settings=make_settings(settings))
    app.add_url_rule("/health", "own", public(lambda: "own"), host="own.example.com")
    m9m.protect("m9m_metrics", require_auth(scopes="more"))
    client = app.test_client()
    for host in ("a.example.com", "localhost:5000", "[::1]"):
        found = [
            client.open(path, method=method, headers={"Host": host}).status_code
            for path, method in (
                ("/health", "GET"),
                ("/metrics", "GET"),
                ("/api/v1/api-keys", "GET"),
                ("/api/v1/api-keys/1", "DELETE"),
                ("/api/v1/auth/login", "POST"),
            )
        ]
        assert found == [200, 401, 401, 401, 400]
    assert client.get("/health", headers={"Host": "own.example.com"}).text == "own"
    assert client_as(app, "ann", scopes=["m9m:metrics"]).get("/metrics").status_code == 403


def test_a_blueprint_of_a_subdomain_is_held_to_its_marks() -> None:
    app = Flask("app", subdomain_matching=True)
    app.config["SERVER_NAME"] = "example.com"
    m9m, blueprint = M9M(app, settings=make_settings()), Blueprint("b", "b", subdomain="<tenant>")
    m9m.protect(blueprint, require_auth)
    blueprint.add_url_rule("/x", "x", lambda tenant: tenant)
    app.register_blueprint(blueprint)
    assert app.test_client().get("http://one.example.com/x").status_code == 401
    assert client_as(app, "ann").get("http://one.example.com/x").text == "one"


@pytest.mark.parametrize("options", [{}, {"name": "renamed"}])
def test_a_nested_blueprint_is_held_to_its_marks_under_its_own_name(options: Any) -> None:
    """Extensions add endpoints to the app under the name of the blueprint object alone."""
    app = Flask("app")
    m9m = M9M(app, settings=make_settings())
    inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__)
    inner.record(lambda setup: setup.app.add_url_rule("/x", "inner.x", lambda: "secret"))
    outer.register_blueprint(inner, **options)
    app.register_blueprint(outer)
    m9m.protect(inner, require_auth(roles="admin"))
    m9m.protect(outer, require_auth(scopes="x"))
    clients = (
        app.test_client(),
        client_as(app, "ann", scopes=["x"]),
        client_as(app, "eve", roles=["admin"]),
    )
    assert [client.get("/x").status_code for client in clients] == [401, 403, 403]
    both = client_as(app, "eve", scopes=["x"], roles=["admin"])
    assert both.get("/x").status_code == 200


@pytest.mark.parametrize("matching", ["host", "subdomain"])
def test_a_signed_url_of_a_rule_with_a_variable_in_its_host_covers_the_host(matching: str) -> None:
    by_host = matching == "host"
    app = Flask("app", host_matching=by_host, subdomain_matching=not by_host, static_folder=None)
    app.config["SERVER_NAME"] = None if by_host else "example.com"
    m9m = M9M(app, settings=make_settings())
    place: dict[str, Any] = (
        {"host": "<tenant>.example.com"} if by_host else {"subdomain": "<tenant>"}
    )
    app.add_url_rule("/x", "x", require_signed_url(lambda tenant: tenant), **place)
    app.add_url_rule("/sign", "sign", public(lambda tenant: m9m.sign_url("/x", 60)), **place)
    client = app.test_client()
    with app.app_context():
        absolute = m9m.sign_url("http://One.example.com/x", 60)
    relative = client.get("http://one.example.com/sign").text
    for url in (absolute, f"http://one.example.com{relative}"):
        assert client.get(url).text == "one"
        assert client.head(url).status_code == 200
        other = url.replace("One", "two").replace("one", "two")
        assert client.get(other).status_code == 403


class Rerouting(Flask):
    """Changes the rule after the hooks of the request, as a Flask of an app's own may."""

    def dispatch_request(self, *args: Any) -> Any:
        if "rule" in request.args:
            (request.url_rule,) = self.url_map.iter_rules(request.args["rule"])
            request.view_args = {}
        return super().dispatch_request(*args)


@pytest.mark.parametrize("protect", [False, True])
def test_a_dispatch_of_the_apps_own_is_held_to_the_rule_that_it_chooses(protect: bool) -> None:
    app = Rerouting("app")
    m9m = M9M(app, settings=make_settings(CLOSED))
    view: Any = lambda: "secret"  # noqa: E731
    app.add_url_rule("/secret", "secret", view if protect else require_auth(roles="admin")(view))
    if protect:
        m9m.protect("secret", require_auth(roles="admin"))
    app.add_url_rule("/open", "open", public(lambda: "open"))
    app.add_url_rule("/undecided", "undecided", lambda: "undecided")
    client = app.test_client()
    assert client.get("/open").text == "open"
    assert client.get("/open?rule=secret").status_code == 401
    assert client.get("/open?rule=undecided").status_code == 401
    assert client_as(app, "ann").get("/open?rule=secret").status_code == 403
    assert client_as(app, "ann", roles="admin").get("/open?rule=secret").text == "secret"


def test_a_dispatch_of_the_apps_own_is_counted_once() -> None:
    app = Rerouting("app")
    M9M(app, settings=make_settings(LIMITED))
    app.add_url_rule("/open", "open", public(lambda: "open"))
    client = app.test_client()
    assert [client.get("/open").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("handled", [False, True])
def test_a_guarded_view_that_after_request_calls_is_refused_and_no_failure(
    handled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = secured()
    app.add_url_rule("/open", "open", public(lambda: "open"))
    if handled:
        app.register_error_handler(500, lambda error: ("broken", 500))

    @app.after_request
    def append(response: Any) -> Any:
        response.data += require_auth(lambda: b"more")()
        return response

    answer = app.test_client().get("/open")
    assert (answer.status_code, error_of(answer)["code"]) == (401, "AUTH_REQUIRED")
    assert "Traceback" not in caplog.text
    assert answer.headers["WWW-Authenticate"]
    assert client_as(app, "ann").get("/open").text == "openmore"


def test_a_path_is_not_signed_for_an_unknown_host() -> None:
    app = Flask("app", host_matching=True, static_folder=None)
    m9m = M9M(app, settings=make_settings())
    app.add_url_rule(
        "/x", "x", require_signed_url(lambda tenant: tenant), host="<tenant>.example.com"
    )
    with app.app_context():
        with pytest.raises(ValueError, match="url must be absolute outside a request"):
            m9m.sign_url("/x", 60)
        signed = m9m.sign_url("http://a.example.com/x", 60)
    client = app.test_client()
    assert client.get(signed).text == "a"
    assert client.get(signed.replace("a.example", "b.example")).status_code == 403


def test_a_protected_blueprint_must_be_one_of_this_apps(caplog: pytest.LogCaptureFixture) -> None:
    blueprint = Blueprint("admin", "admin")
    blueprint.add_url_rule("/x", "x", lambda: "x")
    other = Flask("other")
    other.register_blueprint(blueprint)
    M9M(other, settings=make_settings())
    app = Flask("app")
    m9m = M9M(app, settings=make_settings())
    m9m.protect(blueprint, require_auth)
    with pytest.raises(SettingsError, match="no app of this M9M has registered this blueprint"):
        app.test_client().get("/")
    late = Flask("late")
    m9m.init_app(late, settings=make_settings())
    late.register_blueprint(blueprint)
    assert late.test_client().get("/x").status_code == 401
