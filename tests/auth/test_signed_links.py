"""Signed URLs: what they open, what they leave closed."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Blueprint, Flask, request, url_for
from flask.views import MethodView
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_m9m import (
    M9M,
    SettingsError,
    cacheable,
    current_identity,
    public,
    rate_limit,
    require_auth,
    require_signed_url,
)
from flask_m9m.auth.signed_links import Links
from flask_m9m.errors import InvalidSignature
from flask_m9m.testing import Clock, client_as, make_settings
from tests.bodies import error_of
from tests.conftest import MakeApp

CLOSED = {"security": {"default_access": "authenticated"}}
REFUSED = {
    "error": "Forbidden",
    "code": "INVALID_SIGNATURE",
    "message": "invalid or expired link",
}

m9m = M9M()  # its methods go by the current app


def sign(app: Flask, url: str, max_age: Any = "15m", method: str = "GET", purpose: str = "") -> str:
    with app.app_context():
        return m9m.sign_url(url, max_age, method, purpose)


def assert_refused(answer: Any) -> None:
    assert (answer.status_code, error_of(answer)) == (403, REFUSED)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "WWW-Authenticate" not in answer.headers


def outcomes(app: Flask, path: str, purpose: str = "") -> tuple[int, int, int, int]:
    """Return what a stranger and ann get, without and with a signed URL."""
    signed = sign(app, path, purpose=purpose)
    stranger, ann = app.test_client(), client_as(app, "ann")
    one, two, three, four = (who.get(url) for url in (path, signed) for who in (stranger, ann))
    return one.status_code, two.status_code, three.status_code, four.status_code


@pytest.mark.parametrize("settings", [{}, CLOSED])
def test_either_order_of_the_decorators_protects_and_a_signed_url_opens(
    make_app: MakeApp, settings: dict[str, Any]
) -> None:
    app = make_app(settings)

    @app.get("/below")
    @require_signed_url
    def below() -> str:
        return "below"

    @require_signed_url(purpose="download")
    @app.get("/above")
    def above() -> str:
        return "above"

    @app.get("/async")
    @require_signed_url
    async def coroutine() -> str:
        return "async"

    assert outcomes(app, "/below") == (403, 403, 200, 200)
    assert outcomes(app, "/async") == (403, 403, 200, 200)
    assert outcomes(app, "/above", "download") == (403, 403, 200, 200)
    assert outcomes(app, "/above", "upload") == (403, 403, 403, 403)


def test_a_refusal_is_the_same_for_every_cause(app: Flask, clock: Clock) -> None:
    app.add_url_rule("/x", "x", require_signed_url(lambda: "x"), methods=["GET", "POST"])
    client, good = app.test_client(), sign(app, "/x?a=1", 60)
    assert client.get(good).text == "x"
    signature = good.partition("signature=")[2]
    for url in (
        "/x",
        "/x?a=1",
        f"/x?a=1&signature={'x' * 10_000}",
        "/x?a=1&signature=%00%FF%F0%9F",
        "/x?a=1&signature=.eJyrVgoM",
        f"{good}&signature={signature}",
        good.replace("a=1", "a=2"),
        f"{good}&b=1",
        good[:-1],
        sign(app, "/y?a=1").replace("/y", "/x"),
        sign(app, "/x?a=1", method="POST"),
        sign(app, "/x?a=1", purpose="other"),
    ):
        assert_refused(client.get(url))
    assert_refused(client.post(good))
    assert_refused(client.post("/x?a=1", data={"signature": signature}))
    for query in ("signature=\xff\x00\xe4", "&" * 100_000, "signature=%", "\x00=\x00"):
        assert_refused(client.get("/x", environ_overrides={"QUERY_STRING": query}))
    clock.advance(60)
    assert_refused(client.get(good))
    problem = client.get("/x", headers={"Accept": "application/problem+json"})
    assert (problem.status_code, problem.mimetype) == (403, "application/problem+json")


def test_a_link_for_get_answers_head(app: Flask) -> None:
    app.add_url_rule("/x", "x", require_signed_url(lambda: "x"))
    assert app.test_client().head(sign(app, "/x")).status_code == 200
    assert app.test_client().head("/x").status_code == 403


def test_the_url_that_url_for_writes_is_the_url_that_comes(app: Flask) -> None:
    @app.get("/files/<path:name>")
    @require_signed_url
    def file(name: str) -> Any:
        return {"name": name, "tags": request.args.getlist("tag"), "q": request.args.get("q")}

    name, query = "a b/ä%2F;+~?#.txt", {"tag": ["z", "", "a"], "q": "ü & = +"}
    with app.test_request_context("/", base_url="http://localhost/mounted"):
        path = url_for("file", name=name, **query)
        absolute = url_for("file", name=name, _external=True, **query)
    assert path.startswith("/mounted/files/")
    for url in (path, absolute):
        signed = sign(app, url).removeprefix("http://localhost").removeprefix("/mounted")
        client = app.test_client()
        answer = client.get(signed, base_url="http://localhost/mounted")
        assert answer.json == {"name": name, **{"tags": query["tag"], "q": query["q"]}}
        assert_refused(client.get(signed))


def test_a_mounted_app_is_signed_for_by_its_full_path(app: Flask) -> None:
    app.add_url_rule("/x", "x", require_signed_url(lambda: "x"))
    outer = Flask("outer")
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/inner": app})  # type: ignore[method-assign]
    client = outer.test_client()
    assert client.get(sign(app, "/inner/x")).text == "x"
    assert client.get(sign(app, "/x").replace("/x", "/inner/x")).status_code == 403


def test_together_with_require_auth_both_hold(app: Flask) -> None:
    @app.get("/x")
    @require_signed_url
    @require_auth(scopes="a")
    def view() -> str:
        return current_identity.subject

    good = sign(app, "/x")
    admitted = client_as(app, "ann", ["a"])
    assert app.test_client().get("/x").status_code == 401
    assert app.test_client().get(good).status_code == 401
    assert client_as(app, "ann").get(good).json["code"] == "ACCESS_DENIED"
    assert_refused(admitted.get("/x"))
    assert admitted.get(good).text == "ann"
    assert admitted.get(good).headers["Cache-Control"] == "no-store"


def test_with_an_optional_identity_the_signature_is_none_the_less_needed(app: Flask) -> None:
    @app.get("/x")
    @require_auth(optional=True)
    @require_signed_url
    def view() -> str:
        return current_identity.subject if current_identity else "nobody"

    good = sign(app, "/x")
    assert outcomes(app, "/x") == (403, 403, 200, 200)
    assert app.test_client().get(good).text == "nobody"
    assert client_as(app, "ann").get(good).text == "ann"
    assert app.test_client().get(good, headers={"Authorization": "Bearer bad"}).status_code == 401


def test_it_grants_no_identity(make_app: MakeApp) -> None:
    app = make_app(CLOSED)
    app.add_url_rule("/x", "x", require_signed_url(lambda: str(bool(current_identity))))
    good = sign(app, "/x")
    assert app.test_client().get(good).text == "False"
    assert client_as(app, "ann").get(good).text == "False"
    assert app.test_client().get(good, headers={"Authorization": "Bearer bad"}).text == "False"


def test_public_and_a_signature_on_one_view_contradict(make_app: MakeApp) -> None:
    for first, second in ((public, require_signed_url), (require_signed_url, public)):
        with pytest.raises(ValueError, match="both @public and @require_signed_url"):

            @first
            @second
            def view() -> str:
                return ""

    def other() -> str:
        return ""

    app = make_app()
    opened = public(other)
    require_signed_url(other)
    app.add_url_rule("/x", "x", opened)
    with pytest.raises(SettingsError, match="both @public and @require_signed_url"):
        app.test_client().get("/x")


def test_two_purposes_on_one_route_are_named_and_one_twice_is_one(app: Flask) -> None:
    one = require_signed_url(purpose="a")
    app.add_url_rule("/x", "x", one(require_signed_url(purpose="b")(lambda: "x")))
    app.add_url_rule("/y", "y", one(require_signed_url(purpose="a")(lambda: "y")))
    with pytest.raises(SettingsError, match="route x: @require_signed_url for several purposes"):
        app.test_client().get(sign(app, "/x", purpose="a"))
    assert outcomes(app, "/y", "a") == (403, 403, 200, 200)


def test_view_classes_inherit_it_and_methods_differ(make_app: MakeApp) -> None:
    app = make_app(CLOSED)

    @require_signed_url
    class Base(MethodView):
        def get(self) -> str:
            return "get"

        @require_auth(instead=True)
        def post(self) -> str:
            return "post"

        @public
        def put(self) -> str:
            return "put"

    class Child(Base):
        @require_signed_url(purpose="delete", instead=True)
        def delete(self) -> str:
            return "delete"

    app.add_url_rule("/x", view_func=Child.as_view("x"))
    client, ann = app.test_client(), client_as(app, "ann")
    assert outcomes(app, "/x") == (403, 403, 200, 200)
    assert client.head("/x").status_code == 403
    assert (client.post("/x").status_code, ann.post("/x").status_code) == (401, 200)
    assert client.put("/x").status_code == 200
    assert client.delete(sign(app, "/x", method="DELETE")).status_code == 403
    assert client.delete(sign(app, "/x", 60, "DELETE", "delete")).status_code == 200


def test_protect_covers_blueprints_and_patterns_and_adds_to_what_closes() -> None:
    app = Flask("app")
    app.testing = True
    own = M9M(app, settings=make_settings(CLOSED))
    blueprint = Blueprint("api", "api")
    blueprint.add_url_rule("/signed", "signed", lambda: "x")
    blueprint.add_url_rule("/open", "open", public(lambda: "x"))
    blueprint.add_url_rule("/known", "known", require_auth(lambda: "x"))
    app.register_blueprint(blueprint)
    app.add_url_rule("/report", "report.weekly", lambda: "x")
    own.protect(blueprint, require_signed_url)
    own.protect("report.*", require_signed_url(purpose="report"))
    assert outcomes(app, "/signed") == (403, 403, 200, 200)
    assert outcomes(app, "/open") == (200, 200, 200, 200)
    assert outcomes(app, "/known") == (401, 403, 401, 200)
    assert outcomes(app, "/report", "report") == (403, 403, 200, 200)


def test_a_view_reached_past_its_route_is_guarded(app: Flask) -> None:
    @require_signed_url(purpose="inner")
    def inner() -> str:
        return "inner"

    app.add_url_rule("/outer", "outer", lambda: inner())

    @require_signed_url
    class Hidden(MethodView):
        def get(self) -> str:
            return "hidden"

    view = Hidden.as_view("hidden")
    app.add_url_rule("/hidden", "hidden", lambda: view())
    assert outcomes(app, "/outer", "inner") == (403, 403, 200, 200)
    assert outcomes(app, "/hidden") == (403, 403, 200, 200)
    answer = app.test_client().get(sign(app, "/outer", purpose="inner"))
    assert answer.headers["Cache-Control"] == "no-store"


def test_what_closes_the_dispatching_method_stays_closed_where_another_method_opens(
    app: Flask,
) -> None:
    class Mixed(MethodView):
        @require_signed_url
        def dispatch_request(self, **values: Any) -> Any:
            return super().dispatch_request(**values)

        @public
        def get(self) -> str:
            return "get"

    app.add_url_rule("/x", view_func=Mixed.as_view("x"))
    assert outcomes(app, "/x") == (403, 403, 200, 200)
    assert app.extensions["m9m"].routes.compile("x", "GET").access == "signed"


def test_a_signature_is_verified_once_a_request(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    admits = Links.admits

    def counted(links: Links, environ: Any, purpose: str, host: str | None) -> bool:
        asked.append(purpose)
        return admits(links, environ, purpose, host)

    monkeypatch.setattr(Links, "admits", counted)
    twice = require_signed_url(require_signed_url(purpose="")(lambda: "x"))
    app.add_url_rule("/x", "x", twice)
    assert app.test_client().get(sign(app, "/x")).text == "x"
    assert asked == [""]


def test_rate_limits_count_bad_links_too(app: Flask) -> None:
    app.add_url_rule("/x", "x", rate_limit("2/minute")(require_signed_url(lambda: "x")))
    client = app.test_client()
    statuses = [client.get(url).status_code for url in ("/x", sign(app, "/x"), sign(app, "/x"))]
    assert statuses == [403, 200, 429]


def test_answers_are_not_stored_unless_the_view_says_how(app: Flask) -> None:
    def cached() -> Any:
        return "x", 200, {"Cache-Control": "public, max-age=60"}

    app.add_url_rule("/plain", "plain", require_signed_url(lambda: "x"))
    app.add_url_rule("/own", "own", require_signed_url(cached))
    app.add_url_rule("/shared", "shared", cacheable(require_signed_url(cached)))
    app.add_url_rule("/open", "open", lambda: "x")

    def caching(path: str) -> Any:
        answer = app.test_client().get(sign(app, path))
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        return answer.headers.getlist("Cache-Control")

    assert caching("/plain") == ["no-store"]
    assert caching("/own") == ["max-age=60, private"]
    assert caching("/shared") == ["public, max-age=60"]
    assert caching("/open") == []


def test_a_preflight_and_an_automatic_options_need_no_signature(app: Flask) -> None:
    app.add_url_rule("/x", "x", require_signed_url(lambda: "x"))
    assert app.test_client().options("/x").status_code == 200


def test_values_come_back_and_what_is_no_value_is_answered_403(app: Flask, clock: Clock) -> None:
    @app.get("/confirm")
    def confirm() -> Any:
        return m9m.unsign(request.args.get("token"), "confirm")

    with app.app_context():
        token = m9m.sign({"user": 7}, "1h", "confirm")
        other = m9m.sign({"user": 7}, "1h")
    client = app.test_client()
    assert client.get(f"/confirm?token={token}").json == {"user": 7}
    assert_refused(client.get("/confirm"))
    assert_refused(client.get(f"/confirm?token={other}"))
    clock.advance(3600)
    assert_refused(client.get(f"/confirm?token={token}"))
    with app.app_context(), pytest.raises(InvalidSignature):
        m9m.unsign(token, "confirm")


def test_without_a_secret_nobody_gets_through(make_app: MakeApp) -> None:
    app = make_app({"security": {"jwt": {"enabled": False}}}, TESTING=False)
    app.add_url_rule("/x", "x", require_signed_url(lambda: "x"))
    assert app.test_client().get("/x?signature=1.x").status_code == 500
    app.testing = True
    with pytest.raises(SettingsError, match="M9M_JWT_SECRET"):
        app.test_client().get("/x")
    with pytest.raises(SettingsError, match="M9M_JWT_SECRET"):
        sign(app, "/x")


def test_signing_without_m9m_says_what_to_do() -> None:
    with Flask("bare").app_context(), pytest.raises(RuntimeError, match=r"call M9M\(app\)"):
        m9m.sign("x", 60)
