"""`security.errors.all`: every HTTP error of the app has our codes and the request's id."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, redirect
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.test import TestResponse

import flask_m9m
from flask_m9m import M9M, public, require_auth
from flask_m9m.errors import M9MError
from flask_m9m.testing import make_settings
from tests.bodies import error_of

ROOT = Path(__file__).parents[2]


def secured(**errors: Any) -> Flask:
    app = Flask("app")
    settings = {"security": {"errors": {"all": True, **errors}, "default_access": "public"}}
    M9M(app, settings=make_settings(settings))
    app.add_url_rule("/x", "x", public(lambda: "x"))
    app.add_url_rule("/slash/", "slash", public(lambda: "x"))
    app.add_url_rule("/closed", "closed", require_auth(lambda: "x"))
    app.add_url_rule("/fails", "fails", lambda: 1 / 0)

    @app.get("/abort/<int:code>")
    def stop(code: int) -> None:
        abort(code, description=f"because {code}")

    return app


def code_of(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, error_of(answer)["code"]


def test_errors_of_flask_and_of_the_app_have_our_format() -> None:
    app = secured()
    app.testing = False
    client = app.test_client()
    assert code_of(client.get("/nowhere")) == (404, "NOT_FOUND")
    answer = client.delete("/x")
    assert code_of(answer) == (405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    answer = client.get("/abort/422")
    assert code_of(answer) == (422, "UNPROCESSABLE_ENTITY")
    assert error_of(answer)["message"] == "because 422"
    assert code_of(client.get("/fails")) == (500, "INTERNAL_ERROR")
    assert "division" not in client.get("/fails").text
    assert code_of(client.get("/closed")) == (401, "AUTH_REQUIRED")
    assert client.get("/closed").headers["WWW-Authenticate"]


@pytest.mark.parametrize("errors", [{"format": "problem"}, {}])
def test_problem_details_are_negotiated(errors: dict[str, Any]) -> None:
    client = secured(**errors).test_client()
    answer = client.get("/nowhere", headers={"Accept": "application/problem+json"})
    assert answer.content_type == "application/problem+json"
    assert (answer.json or {})["title"] == "Not Found"
    assert (answer.json or {})["code"] == "NOT_FOUND"


def test_redirects_and_ready_responses_stay() -> None:
    app = secured()
    app.add_url_rule("/go", "go", lambda: redirect("/x"))
    app.add_url_rule("/ready-made", "ready", lambda: abort(Response("mine", 409)))
    client = app.test_client()
    assert client.get("/slash").status_code == 308
    assert client.get("/go").status_code == 302
    assert client.get("/ready-made").text == "mine"


def test_the_apps_own_handlers_go_first() -> None:
    app = secured()
    blueprint = Blueprint("pages", "pages", url_prefix="/pages")

    @blueprint.errorhandler(404)
    def not_found(error: HTTPException) -> tuple[str, int]:
        return "no such page", 404

    @blueprint.get("/missing")
    def missing() -> None:
        raise NotFound

    app.register_blueprint(blueprint)
    app.register_error_handler(405, lambda error: ("not like that", 405))
    client = app.test_client()
    assert client.get("/pages/missing").text == "no such page"
    assert client.delete("/x").text == "not like that"
    assert code_of(client.get("/nowhere")) == (404, "NOT_FOUND")


def test_an_unknown_status_stays_as_it_is() -> None:
    class Odd(HTTPException):
        code = 499
        description = "odd"

    app = secured()

    @app.get("/odd")
    def odd() -> None:
        raise Odd

    assert app.test_client().get("/odd").status_code == 499


def test_without_the_setting_the_errors_stay_flasks() -> None:
    client = secured(all=False).test_client()
    assert client.get("/nowhere").content_type == "text/html; charset=utf-8"


def test_an_error_of_the_app_is_no_refusal(caplog: pytest.LogCaptureFixture) -> None:
    app = secured()
    with caplog.at_level("INFO", "flask_m9m.audit"):
        answer = app.test_client().get("/abort/403")
    assert code_of(answer) == (403, "FORBIDDEN")
    assert "access_denied" not in caplog.text


def test_the_table_of_codes_is_complete() -> None:
    for module in walk_packages(flask_m9m.__path__, "flask_m9m."):
        if not module.name.endswith((".serve", ".__main__")):
            import_module(module.name)
    text = (ROOT / "docs" / "routes.md").read_text()
    listed = set(re.findall(r"^\| (\d{3}) \| `([A-Z_]+)`", text, re.MULTILINE))
    codes = {
        (str(kind.code), kind.error_code)
        for kind in below(M9MError)
        if kind.__module__.startswith("flask_m9m.") and getattr(kind, "code", None)
        if hasattr(kind, "error_code")
    }
    assert listed == codes


def below(kind: type[M9MError]) -> Iterator[type[M9MError]]:
    for inner in kind.__subclasses__():
        yield inner
        yield from below(inner)
