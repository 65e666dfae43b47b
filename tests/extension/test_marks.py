"""Decorators: either order protects, opening stays where it was meant."""

from __future__ import annotations

import base64
import copy
import functools
import gc
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jwt
import pytest
from flask import Blueprint, Flask, request
from flask.views import MethodView, View
from werkzeug.routing import Rule

from flask_m9m import (
    M9M,
    Identity,
    SettingsError,
    cors,
    current_identity,
    public,
    rate_limit,
    require_auth,
    security_headers,
)
from flask_m9m.errors import AccessDenied, InvalidToken, M9MError
from flask_m9m.testing import Clock, client_as, make_settings
from tests.bodies import error_of
from tests.conftest import MakeApp
from tests.databases import settle

CLOSED = {"security": {"default_access": "authenticated"}}


def report() -> str:
    return "report"


def statuses(app: Flask, path: str) -> tuple[int, int]:
    """Return what a stranger and what ann get."""
    return app.test_client().get(path).status_code, client_as(app, "ann").get(path).status_code


def test_either_order_of_the_decorators_protects(app: Flask) -> None:
    @app.get("/below")
    @require_auth
    def below() -> str:
        return "below"

    @require_auth
    @app.get("/above")
    def above() -> str:
        return "above"

    assert statuses(app, "/below") == (401, 200)
    assert statuses(app, "/above") == (401, 200)


def test_what_closes_holds_for_every_route_of_the_function(app: Flask) -> None:
    def own() -> str:
        return "own"

    app.add_url_rule("/bare", "bare", own)
    app.add_url_rule("/closed", "closed", require_auth(own))
    assert statuses(app, "/bare") == (401, 200)
    assert statuses(app, "/closed") == (401, 200)


@pytest.mark.parametrize("open_first", [True, False])
@pytest.mark.parametrize("again", [1, 2])
def test_public_of_one_route_leaves_another_of_the_same_function_closed(
    make_app: MakeApp, open_first: bool, again: int
) -> None:
    app = make_app(CLOSED)
    rules: list[tuple[str, Callable[[], Any]]] = [("/open", public(report)), ("/closed", report)]
    for path, view in rules if open_first else reversed(rules):
        app.add_url_rule(path, path[1:], view)
    assert statuses(app, "/open") == (200, 200)
    assert statuses(app, "/closed") == (401, 200)


def test_public_opens_above_and_below_the_route_decorator(make_app: MakeApp) -> None:
    app = make_app(CLOSED)
    blueprint = Blueprint("api", "api")

    @app.get("/below")
    @public
    def below() -> str:
        return "below"

    @public
    @app.get("/above")
    def above() -> str:
        return "above"

    @public
    @blueprint.get("/in-blueprint")
    def in_blueprint() -> str:
        return "in-blueprint"

    @app.get("/undecided")
    def undecided() -> str:
        return "undecided"

    app.register_blueprint(blueprint)
    for path in ("/below", "/above", "/in-blueprint"):
        assert statuses(app, path) == (200, 200), path
    assert statuses(app, "/undecided") == (401, 200)


def test_public_and_require_auth_on_one_view_contradict(make_app: MakeApp) -> None:
    with pytest.raises(ValueError, match="both @public and @require_auth"):

        @public
        @require_auth
        def view() -> str:
            return ""

    def other() -> str:
        return ""

    app = make_app()
    opened = public(other)
    require_auth(other)
    app.add_url_rule("/x", "x", opened)
    with pytest.raises(SettingsError, match="both @public and @require_auth"):
        app.test_client().get("/x")


def test_a_mark_copied_by_wraps_counts_once(make_app: MakeApp) -> None:
    app = make_app()

    def passing(view: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(view)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return view(*args, **kwargs)

        return wrapper

    @app.get("/x")
    @passing
    @rate_limit("3/minute", burst=3)
    @passing
    def view() -> str:
        return "x"

    client = app.test_client()
    assert [client.get("/x").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert client.get("/x").headers["RateLimit-Policy"] == '"view";q=3;w=60'


def test_a_decorator_without_wraps_between_still_leaves_the_view_guarded(app: Flask) -> None:
    def opaque(view: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(**kwargs: Any) -> Any:
            return view(**kwargs)

        return wrapper

    @app.get("/x", endpoint="x")
    @opaque
    @require_auth(scopes="a")
    @rate_limit("2/minute", burst=2)
    def view() -> str:
        return current_identity.subject

    assert app.test_client().get("/x").status_code == 401
    assert client_as(app, "ann").get("/x").status_code == 403
    good = client_as(app, "ann", ["a"])
    answers = [good.get("/x") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].text == "ann"
    assert answers[0].headers["Cache-Control"] == "no-store"
    assert "Authorization" in answers[0].headers["Vary"]


def test_a_view_called_by_another_view_is_guarded(app: Flask) -> None:
    @require_auth(roles="admin")
    def inner() -> str:
        return "inner"

    @app.get("/outer")
    @require_auth
    def outer() -> str:
        return inner()

    assert statuses(app, "/outer") == (401, 403)
    assert client_as(app, "ann", roles=["admin"]).get("/outer").text == "inner"


def test_several_requirements_on_one_view_all_hold(app: Flask) -> None:
    @app.get("/x")
    @require_auth(scopes="a b")
    @require_auth(roles=["admin", "owner"])
    @require_auth(any_scope=["c", "d"])
    def view() -> str:
        return "x"

    def status(scopes: str, *roles: str) -> int:
        return client_as(app, "ann", scopes.split(), roles).get("/x").status_code

    assert status("a b c", "owner") == 200
    assert status("a b d", "admin", "other") == 200
    assert status("a b c") == 403
    assert status("a c", "admin") == 403
    assert status("a b", "admin") == 403


def test_a_missing_scope_is_named_in_the_challenge(app: Flask) -> None:
    app.add_url_rule("/x", "x", require_auth(scopes=["workflow:read", "b"])(lambda: "x"))
    answer = client_as(app, "ann").get("/x")
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"] == (
        'Bearer realm="m9m", error="insufficient_scope", scope="workflow:read b"'
    )
    assert error_of(answer) == {
        "error": "Forbidden",
        "code": "ACCESS_DENIED",
        "message": "Access denied",
    }


def test_a_missing_scope_is_named_whatever_the_credential_was(
    sqlite_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")
    app = Flask("app")
    security = {
        "jwt": {"secret": "x1" * 32, "cookie": {"enabled": True}},
        "basic_auth": {"enabled": True, "username": "ann", "password": "correct horse"},
    }
    settings = make_settings({"database": {"url": sqlite_url}, "security": security})
    m9m = M9M(app, settings=settings, clock=clock)

    @m9m.authenticator("stamp")
    def stamp() -> Identity | None:
        return Identity("ann", "stamp") if "X-Stamp" in request.headers else None

    @m9m.identity_loader
    def load(identity: Identity) -> Identity:
        return replace(identity, scheme="renamed")  # the challenge is the credential's

    app.add_url_rule("/x", "x", require_auth(scopes="a b")(lambda: "x"))
    app.add_url_rule("/admin", "admin", require_auth(roles="admin")(lambda: "x"))
    app.extensions["m9m"].database.upgrade()
    with app.app_context():
        pair = m9m.tokens.issue_pair("ann", scopes=(), roles=())
        _, key = m9m.api_keys.create("ci", "ann")
    basic = base64.b64encode(b"ann:correct horse").decode()
    client = app.test_client(use_cookies=False)
    for headers, challenge in (
        ({"Authorization": f"Bearer {pair.access_token}"}, 'Bearer realm="m9m"'),
        ({"Cookie": f"__Host-m9m-access={pair.access_token}"}, 'Bearer realm="m9m"'),
        ({"X-API-Key": key}, 'ApiKey realm="m9m"'),
        ({"Authorization": f"Api-Key {key}"}, 'ApiKey realm="m9m"'),
        ({"Authorization": f"Basic {basic}"}, 'Basic realm="m9m", charset="UTF-8"'),
        ({"X-Stamp": "1"}, 'stamp realm="m9m"'),
    ):
        for path, scope in (("/x", ', scope="a b"'), ("/admin", "")):
            denied = client.get(path, headers=headers)
            assert denied.status_code == 403
            named = f'{challenge}, error="insufficient_scope"{scope}'
            assert denied.headers.getlist("WWW-Authenticate") == [named]
    settle()
    app.extensions["m9m"].database.close()


def test_scopes_are_separated_by_spaces_alone(app: Flask) -> None:
    """RFC 6749 §3.3; `str.split` would also split at tabs, line ends and U+00A0."""
    app.add_url_rule("/x", "x", require_auth(scopes="admin")(lambda: "x"))
    secret = app.extensions["m9m"].guard.settings.security.jwt.secret.get_secret_value()
    now = int(app.extensions["m9m"].identities.tokens._clock())
    claims = {"sub": "ann", "iat": now, "exp": now + 60}
    client = app.test_client()
    for scope, status in (
        ("read admin", 200),
        ("  read  admin ", 200),
        *((f"read{separator}admin", 403) for separator in "\t\n\r\v\f\x1c\x85\u00a0\u2003,;"),
    ):
        token = jwt.encode({**claims, "scope": scope}, secret)
        answer = client.get("/x", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status, ascii(scope)


def test_optional_allows_absence_only(app: Flask) -> None:
    @app.get("/x")
    @require_auth(optional=True)
    def view() -> str:
        return current_identity.subject if current_identity else "nobody"

    client = app.test_client()
    answer = client.get("/x")
    assert (answer.status_code, answer.text) == (200, "nobody")
    assert "Authorization" in answer.headers["Vary"]
    assert client.get("/x", headers={"Authorization": "Bearer bad"}).status_code == 401
    assert client.get("/x", headers={"Authorization": "Digest x"}).status_code == 401
    assert client_as(app, "ann").get("/x").text == "ann"


def test_fresh_wants_a_token_from_a_login(app: Flask) -> None:
    app.add_url_rule("/x", "x", require_auth(fresh=True)(lambda: "x"))
    answer = client_as(app, "ann").get("/x")
    assert answer.status_code == 401
    assert 'error="insufficient_user_authentication"' in answer.headers["WWW-Authenticate"]
    assert client_as(app, "ann", fresh=True).get("/x").status_code == 200


def test_view_classes_inherit_marks_and_methods_differ(make_app: MakeApp) -> None:
    app = make_app(CLOSED)

    @require_auth(roles="admin")
    class Base(MethodView):
        def get(self) -> str:
            return "get"

        @require_auth(scopes="w")
        def post(self) -> str:
            return "post"

    class Child(Base):
        @public
        def put(self) -> str:
            return "put"

    @public
    class Opened(Base):
        pass

    app.add_url_rule("/child", view_func=Child.as_view("child"))
    app.add_url_rule("/opened", view_func=Opened.as_view("opened"))
    stranger, ann = app.test_client(), client_as(app, "ann")
    admin = client_as(app, "ann", ["w"], ["admin"])
    assert [one.get("/child").status_code for one in (stranger, ann, admin)] == [401, 403, 200]
    assert [one.head("/child").status_code for one in (stranger, ann, admin)] == [401, 403, 200]
    assert [one.post("/child").status_code for one in (stranger, ann, admin)] == [401, 403, 200]
    assert stranger.put("/child").status_code == 200
    assert stranger.get("/opened").status_code == 200
    assert stranger.post("/opened").status_code == 401


def test_the_decorators_list_of_a_view_class_protects(app: Flask) -> None:
    class Listed(View):
        decorators = [require_auth(scopes="a")]  # noqa: RUF012

        def dispatch_request(self) -> str:
            return "listed"

    app.add_url_rule("/x", view_func=Listed.as_view("listed"))
    assert statuses(app, "/x") == (401, 403)
    assert client_as(app, "ann", ["a"]).get("/x").status_code == 200


def test_a_marked_class_is_guarded_when_its_route_hides_it(app: Flask) -> None:
    @require_auth
    class Hidden(MethodView):
        def get(self) -> str:
            return "hidden"

    view = Hidden.as_view("hidden")
    app.add_url_rule("/x", "x", lambda: view())
    assert statuses(app, "/x") == (401, 200)


def test_async_views_are_protected_and_know_the_caller(app: Flask) -> None:
    @app.get("/x")
    @require_auth
    async def view() -> str:
        return current_identity.subject

    assert app.test_client().get("/x").status_code == 401
    assert client_as(app, "ann").get("/x").text == "ann"


def test_head_is_held_to_what_get_demands(app: Flask) -> None:
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    assert app.test_client().head("/x").status_code == 401


@pytest.mark.parametrize("registered_first", [True, False])
def test_protect_covers_a_blueprint_before_and_after_its_registration(
    registered_first: bool,
) -> None:
    app = Flask("app")
    app.testing = True
    m9m = M9M(app, settings=make_settings())
    blueprint = Blueprint("api", "api")
    blueprint.add_url_rule("/x", "x", lambda: "x")
    blueprint.add_url_rule("/open", "open", public(lambda: "open"))
    if registered_first:
        app.register_blueprint(blueprint)
    m9m.protect(blueprint, require_auth, rate_limit("100/minute"))
    if not registered_first:
        app.register_blueprint(blueprint)
    assert statuses(app, "/x") == (401, 200)
    assert statuses(app, "/open") == (200, 200)
    assert '"api.open";q=100;w=60' in app.test_client().get("/open").headers["RateLimit-Policy"]


def test_the_more_exact_pattern_wins_and_blueprints_beat_patterns() -> None:
    app = Flask("app")
    app.testing = True
    m9m = M9M(app, settings=make_settings(CLOSED))
    docs, admin = Blueprint("docs", "docs"), Blueprint("admin", "admin")
    for blueprint in (docs, admin):
        blueprint.add_url_rule(f"/{blueprint.name}/index", "index", lambda: "index")
        blueprint.add_url_rule(f"/{blueprint.name}/secret", "secret", lambda: "secret")
        app.register_blueprint(blueprint)
    m9m.protect("docs.*", public, security_headers(preset="web"))
    m9m.protect("docs.secret", require_auth(roles="admin"))
    m9m.protect("*", public)
    m9m.protect(admin, require_auth)
    assert statuses(app, "/docs/index") == (200, 200)
    policy = app.test_client().get("/docs/index").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert statuses(app, "/docs/secret") == (401, 403)
    assert statuses(app, "/admin/index") == (401, 200)


def test_protect_takes_only_marks(app: Flask) -> None:
    m9m = M9M()
    with pytest.raises(TypeError, match="decorators"):
        m9m.protect("x", lambda view: view)


def test_flasks_own_static_files_are_public_and_a_view_of_that_name_is_not(
    make_app: MakeApp,
) -> None:
    app = make_app(CLOSED)
    blueprint = Blueprint("own", "own")
    blueprint.add_url_rule("/own-static", "static", lambda: "mine")
    app.register_blueprint(blueprint)
    assert app.test_client().get("/static/none.txt").status_code == 404
    assert statuses(app, "/own-static") == (401, 200)


def test_a_decorated_view_without_m9m_says_what_to_do() -> None:
    app = Flask("bare")
    app.testing = True
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    with pytest.raises(RuntimeError, match=r"call M9M\(app\)"):
        app.test_client().get("/x")


def test_a_route_whose_schemes_are_all_off_lets_nobody_through(make_app: MakeApp) -> None:
    off = {"jwt": {"enabled": False}, "api_keys": {"enabled": False}}
    app = make_app({"security": off}, TESTING=False)
    ran = []

    @app.get("/x")
    @require_auth
    def view() -> str:
        ran.append(1)
        return "x"

    assert app.test_client().get("/x").status_code == 500
    app.testing = True
    with pytest.raises(SettingsError, match=r"route view: .*switched off"):
        app.test_client().get("/x", headers={"Authorization": "Bearer x"})
    assert not ran


def test_a_scheme_that_is_switched_off_opens_nothing(app: Flask) -> None:
    app.add_url_rule("/x", "x", require_auth(schemes=["basic"])(lambda: "x"))
    with pytest.raises(SettingsError, match="switched on: bearer, api_key;"):
        client_as(app, "ann").get("/x")


def test_an_automatic_options_answer_is_open_and_another_is_not(app: Flask) -> None:
    app.add_url_rule("/x", "x", require_auth(lambda: "x"), methods=["GET"])
    answer = app.test_client().options("/x")
    assert answer.status_code == 200
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("name", ["", "a b\x00", 'a"b', "a\\b", "ä", "a\r\nb"])
def test_a_scope_that_cannot_stand_in_a_header_is_refused_when_written(name: str) -> None:
    with pytest.raises(ValueError, match="scope-token"):
        require_auth(scopes=[name])


@pytest.mark.parametrize("method", ["GET", "BOGUS", "POST", "options"])
def test_a_preflight_where_cors_is_off_is_an_options_like_any_other(
    make_app: MakeApp, method: str
) -> None:
    app = make_app({"security": {**CLOSED["security"], "cors": {"enabled": False}}})
    app.add_url_rule("/x", "x", lambda: "secret", methods=["GET", "POST", "OPTIONS"])
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": method}

    class Mixed(MethodView):
        @public
        @cors(enabled=False)
        def get(self) -> str:
            return "get"

        def options(self) -> str:
            return "secret"

    app.add_url_rule("/mixed", view_func=Mixed.as_view("mixed"))
    assert app.test_client().options("/x", headers=preflight).status_code == 401
    assert app.test_client().get("/mixed").status_code == 200
    assert app.test_client().options("/mixed", headers=preflight).status_code == 401


def test_a_class_that_another_class_calls_is_guarded_by_the_mark_they_share(app: Flask) -> None:
    admin = require_auth(roles="admin")

    @admin
    class Accounts(MethodView):
        def get(self) -> str:
            return "accounts"

    @admin
    class Home(MethodView):
        @public
        def get(self) -> Any:
            return Accounts.as_view("inner")()

    app.add_url_rule("/home", view_func=Home.as_view("home"))
    assert statuses(app, "/home") == (401, 403)
    assert client_as(app, "ann", roles=["admin"]).get("/home").text == "accounts"


def test_a_marked_class_inherits_a_coroutine_dispatch_request(app: Flask) -> None:
    class Base(View):
        async def dispatch_request(self) -> str:
            return "base"

    @require_auth
    class Child(Base):
        pass

    app.add_url_rule("/x", view_func=Child.as_view("x"))
    assert statuses(app, "/x") == (401, 200)


def test_view_objects_that_nothing_can_refer_to_are_views_all_the_same(app: Flask) -> None:
    class Slotted:
        __slots__ = ()

        def __call__(self) -> str:
            return "slotted"

    app.add_url_rule("/x", "x", Slotted())
    assert app.test_client().get("/x").text == "slotted"


def test_a_view_put_in_the_place_of_an_open_one_is_not_open(make_app: MakeApp) -> None:
    app = make_app(CLOSED)
    app.add_url_rule("/x", "x", public(lambda: "open"))
    assert app.test_client().get("/x").status_code == 200
    app.view_functions["x"] = lambda: "secret"
    assert statuses(app, "/x") == (401, 200)


def test_rules_added_to_the_map_directly_are_routes_too(make_app: MakeApp) -> None:
    app = make_app(CLOSED)
    app.url_map.add(Rule("/x", endpoint="x"))
    app.view_functions["x"] = lambda: "x"
    for method in ("GET", "OPTIONS", "PURGE"):
        assert app.test_client().open("/x", method=method).status_code == 401
        assert client_as(app, "ann").open("/x", method=method).status_code == 200
    for number in range(300):
        app.test_client().open("/x", method=f"M{number}")
    routes = app.extensions["m9m"].routes
    assert len(routes._compiled) < 10
    assert {method for rule, method, _ in routes.all() if rule.rule == "/x"} >= {"GET", "POST"}


def test_the_same_protection_once_more_changes_nothing() -> None:
    m9m, blueprint = M9M(), Blueprint("api", "api")
    blueprint.add_url_rule("/x", "x", lambda: "x")

    def create_app() -> Flask:
        app = Flask("app")
        app.testing = True
        m9m.init_app(app, settings=make_settings())
        app.register_blueprint(blueprint)
        m9m.protect(blueprint, require_auth, rate_limit("100/minute"))
        m9m.protect("api.*", rate_limit("90/minute"))
        return app

    for app in (create_app(), create_app(), create_app()):
        assert client_as(app, "ann").get("/x").headers["RateLimit-Policy"] == (
            '"api.x";q=100;w=60, "api.x-2";q=90;w=60'
        )


def test_an_identity_can_be_copied_and_sent_to_another_process(app: Flask) -> None:
    with app.app_context():
        tokens = app.extensions["m9m"].identities.tokens
        identity = tokens.verify(tokens.issue("ann", ["a"], claims={"tenant": {"id": 7}}))
    for other in (copy.deepcopy(identity), pickle.loads(pickle.dumps(identity))):
        assert other == identity
        with pytest.raises(TypeError):
            other.claims["tenant"]["id"] = 8


def test_a_protection_that_fits_nothing_stops_the_start() -> None:
    app = Flask("app")
    m9m = M9M(app, settings=make_settings())
    app.add_url_rule("/x", "x", lambda: "x")
    m9m.protect("x", require_auth)
    m9m.protect("admni.*", require_auth)
    m9m.protect(Blueprint("lost", "lost"), require_auth)
    app.register_blueprint(Blueprint("lost", "lost"))  # another object of the same name
    with pytest.raises(SettingsError) as caught:
        app.test_client().get("/x")
    assert [problem.path for problem in caught.value.problems] == [
        "m9m.protect('admni.*')",
        "m9m.protect(<Blueprint lost>)",
    ]
    for target in ("x", Blueprint("b", "b")):
        with pytest.raises(ValueError, match="at least one decorator"):
            m9m.protect(target)
    with pytest.raises(TypeError, match="blueprint"):
        m9m.protect(lambda: "x", require_auth)  # type: ignore[arg-type]


def test_a_protection_may_fit_another_app_of_its_m9m() -> None:
    m9m, blueprint = M9M(settings=make_settings()), Blueprint("admin", "admin")
    m9m.protect("report", require_auth)
    m9m.protect(blueprint, require_auth)
    first, second = Flask("first"), Flask("second")
    for app in (first, second):
        m9m.init_app(app)
    second.add_url_rule("/report", "report", lambda: "x")
    second.register_blueprint(blueprint)
    assert first.test_client().get("/report").status_code == 404
    assert second.test_client().get("/report").status_code == 401


def test_an_app_factory_may_make_its_blueprints_anew_for_each_app() -> None:
    m9m = M9M(settings=make_settings())

    def make_app(name: str) -> Flask:
        app, blueprint = Flask("app"), Blueprint(name, name)
        m9m.init_app(app)
        m9m.protect(blueprint, require_auth)
        m9m.protect(f"{name}.*", rate_limit("5/minute"))
        blueprint.add_url_rule("/x", "x", lambda: "x")
        app.register_blueprint(blueprint)
        return app

    for name in ("one", "two"):
        app = make_app(name)
        assert app.test_client().get("/x").status_code == 401
        del app
        gc.collect()


def test_a_view_is_held_to_its_own_marks_and_to_its_blueprints() -> None:
    app, admin = Flask("app"), Blueprint("admin", "admin")
    m9m = M9M(app, settings=make_settings())
    m9m.protect(admin, require_auth(roles="admin"))
    admin.add_url_rule("/both", "both", require_auth(scopes="x")(lambda: "secret"))
    admin.add_url_rule("/own", "own", require_auth(scopes="x", instead=True)(lambda: "secret"))
    admin.add_url_rule("/open", "open", require_auth(optional=True)(lambda: "open"))
    app.register_blueprint(admin)
    scoped = client_as(app, "ann", scopes=["x"])
    both = client_as(app, "eve", scopes=["x"], roles=["admin"])
    found = [client.get("/both").status_code for client in (app.test_client(), scoped, both)]
    assert found == [401, 403, 200]
    assert [client.get("/own").status_code for client in (app.test_client(), scoped)] == [401, 200]
    assert app.test_client().get("/open").status_code == 200


@pytest.mark.parametrize("mark", [require_auth, rate_limit("1/hour", burst=1)], ids=range(2))
def test_a_mark_above_the_decorator_of_a_hook_or_handler_stops_the_start(mark: Any) -> None:
    def hook(*_: Any) -> None:
        pass

    def before(app: Flask) -> None:
        mark(app.before_request(hook))

    def handler(app: Flask) -> None:
        mark(app.errorhandler(404)(hook))

    for register in (before, handler):
        app = Flask("app")
        M9M(app, settings=make_settings())
        register(app)
        with pytest.raises(SettingsError, match=r"past the mark; write .* below the decorator"):
            app.test_client().get("/x")


@pytest.mark.parametrize("mark", [require_auth, rate_limit("1/hour", burst=1)], ids=range(2))
def test_a_view_that_something_without_wraps_replaced_is_an_error(mark: Any) -> None:
    def by_closure(view: Any) -> Any:
        return lambda **values: view(**values)

    def by_default(view: Any) -> Any:
        return lambda view=view, **values: view(**values)

    for replacing in (by_closure, by_default):
        app = Flask("app")
        app.testing = True
        M9M(app, settings=make_settings())
        mark(app.get("/x")(lambda: "secret"))
        app.add_url_rule("/open", "open", lambda: "open")
        client = app.test_client()
        assert client.get("/open").status_code == 200
        (endpoint,) = set(app.view_functions) - {"static", "open"}
        app.view_functions[endpoint] = replacing(app.view_functions[endpoint])
        with pytest.raises(SettingsError, match="calls the function, past the mark"):
            client.get("/x")
        with pytest.raises(SettingsError, match="calls the function, past the mark"):
            app.extensions["m9m"].routes.check()


def test_a_mark_below_the_decorator_of_a_hook_guards_every_route_of_it(app: Flask) -> None:
    @app.before_request
    @require_auth
    def check() -> None:
        pass

    app.add_url_rule("/x", "x", lambda: "x")
    assert app.test_client().get("/x").status_code == 401
    assert client_as(app, "ann").get("/x").status_code == 200


def test_a_mark_put_on_a_registered_view_later_holds_at_once(app: Flask) -> None:
    def report() -> str:
        return "secret"

    app.add_url_rule("/x", "x", report)
    assert app.test_client().get("/x").status_code == 200
    require_auth(report)
    assert app.test_client().get("/x").status_code == 401


def test_a_scheme_that_nobody_knows_is_named(app: Flask) -> None:
    app.add_url_rule("/x", "x", require_auth(schemes="jwt")(lambda: "x"))
    known = r"unknown scheme 'jwt' \(known: api_key, basic, bearer, cookie\)"
    with pytest.raises(SettingsError, match=known):
        app.test_client().get("/x")


def test_a_decorator_that_was_not_called_says_so(app: Flask) -> None:
    with pytest.raises(TypeError, match=r'@rate_limit\("100/hour"\)'):

        @app.get("/x")
        @rate_limit  # type: ignore[arg-type]
        def view() -> str:
            return "x"


def test_one_pattern_protected_twice_is_no_way_to_open_it() -> None:
    app = Flask("app")
    app.testing = True
    m9m = M9M(app, settings=make_settings())
    app.add_url_rule("/x", "admin", lambda: "x")
    m9m.protect("adm*", public)
    m9m.protect("adm*", require_auth(roles="admin"))
    with pytest.raises(SettingsError, match="both @public and @require_auth"):
        app.test_client().get("/x")


def test_public_on_a_lambda_opens_no_other_route_of_it(make_app: MakeApp) -> None:
    app = make_app(CLOSED)
    # fmt: off
    view = lambda: "x"; app.add_url_rule("/open", "o", public(view)); app.add_url_rule("/c", "c", view)  # noqa: E501, E702, E731
    # fmt: on
    assert statuses(app, "/open") == (200, 200)
    assert statuses(app, "/c") == (401, 200)


def test_what_another_app_proved_of_a_shared_view_opens_nothing_here(make_app: MakeApp) -> None:
    report = require_auth(scopes="secret")(lambda: f"secret for {current_identity.subject}")
    one, other = make_app(), make_app()
    other.add_url_rule("/x", "x", report)

    @one.get("/x")
    def ask_both() -> Any:
        list(other.wsgi_app(request.environ, lambda status, headers, exc_info=None: None))  # type: ignore[arg-type, return-value]
        return report()

    token = client_as(other, "bob", ["secret"]).environ_base["HTTP_AUTHORIZATION"]
    answer = one.test_client().get("/x", headers={"Authorization": token})
    assert answer.status_code == 401
    assert "secret" not in answer.text


def test_an_error_that_is_raised_again_and_again_is_answered_to_each_caller_alone(
    make_app: MakeApp,
) -> None:
    from flask import session

    denied, invalid = AccessDenied(), InvalidToken()
    app = make_app(SECRET_KEY="k" * 40)

    @app.get("/x/<user>")
    def view(user: str) -> str:
        session["user"] = user
        raise denied

    @app.get("/y")
    def other() -> str:
        raise denied

    @app.get("/z")
    def invalid_token() -> str:
        raise invalid

    first = app.test_client().get("/x/alice", headers={"Accept": "application/problem+json"})
    second = app.test_client().get("/y")
    assert "session" in first.headers["Set-Cookie"]
    assert "Set-Cookie" not in second.headers
    assert (first.mimetype, second.mimetype) == ("application/problem+json", "application/json")
    for _ in range(3):
        challenges = app.test_client().get("/z").headers.getlist("WWW-Authenticate")
        assert challenges[0] == 'Bearer realm="m9m", error="invalid_token"'


def test_a_refusal_that_the_app_caught_is_not_its_answer(app: Flask) -> None:
    hidden = require_auth(lambda: "hidden")
    app.testing = False

    def caught() -> bool:
        try:
            hidden()
        except InvalidToken:
            return False
        except M9MError:
            return True
        return False

    @app.get("/503")
    def unavailable() -> Any:
        return (f"caught {caught()}", 503)

    @app.get("/500")
    def broken() -> Any:
        caught()
        raise ZeroDivisionError

    answer = app.test_client().get("/503")
    assert (answer.status_code, answer.text) == (503, "caught True")
    assert app.test_client().get("/500").status_code == 500


@pytest.mark.parametrize("late", [True, False])
def test_a_mounted_apps_answer_is_left_as_its_guard_completed_it(late: bool) -> None:
    inner, outer = Flask("inner"), Flask("outer")
    for name, app in (("inner", inner), ("outer", outer)):
        app.testing = True
        app.add_url_rule("/", "index", lambda: "index")
        origins = [f"https://{name}.example"]
        M9M(
            app,
            settings=make_settings(
                {"security": {"cors": {"allowed_origins": origins, "allow_credentials": True}}}
            ),
        )

    def deferring(environ: Any, start_response: Any) -> Any:
        head: list[Any] = []
        body = inner.wsgi_app(environ, lambda *arguments: head.append(arguments))
        start_response(*head[0])
        return body

    secured = outer.wsgi_app
    secured._wsgi_app = deferring if late else inner.wsgi_app  # type: ignore[attr-defined]
    client = outer.test_client()
    for name, allowed in (("inner", "https://inner.example"), ("outer", None)):
        answer = client.get("/", headers={"Origin": f"https://{name}.example"})
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed
        assert answer.headers.getlist("X-Frame-Options") == ["DENY"]
