"""Merging into the documents of APISpec, APIFlask and flask-smorest, as in docs/openapi.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from apiflask import APIFlask
from apispec import APISpec
from apispec_webframeworks.flask import FlaskPlugin
from flask import Flask
from flask.views import MethodView
from flask_smorest import Api, Blueprint

from flask_m9m import M9M, public, require_auth
from flask_m9m.openapi import merge

from .conftest import Secured

VERSIONS = ("3.0.3", "3.1.0")


def check(document: dict[str, Any], version: str) -> None:
    """Check the requirements of the routes in a document, and that its references resolve."""
    assert document["openapi"] == version
    scopes = [] if version == "3.0.3" else ["items:write"]
    write = document["paths"]["/items/{number}"]["put"]
    assert write["security"] == [{"bearer": scopes}, {"api_key": scopes}]
    assert write["x-m9m"]["requirements"] == [{"scopes": ["items:write"], "roles": ["editor"]}]
    assert {"200", "401", "403", "429"} <= set(write["responses"])
    assert write["responses"]["401"] == {"$ref": "#/components/responses/M9MUnauthorized"}
    assert document["paths"]["/open"]["get"]["security"] == []
    assert "401" not in document["paths"]["/open"]["get"]["responses"]
    assert {"bearer", "api_key"} <= set(document["components"]["securitySchemes"])
    for reference in _references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def _references(node: Any) -> Iterator[str]:
    members = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and isinstance(node.get("$ref"), str):
        yield node["$ref"]
    for member in members:
        yield from _references(member)


def validate(document: dict[str, Any]) -> None:
    """Validate a document, if a validator is installed."""
    pytest.importorskip("openapi_spec_validator").validate(document)


def with_apispec(secured: Secured, version: str) -> dict[str, Any]:
    app, m9m = secured()

    @app.put("/items/<int:number>")
    @require_auth(scopes="items:write", roles="editor")
    def write(number: int) -> str:
        """Write.
        ---
        put:
          parameters: [{name: number, in: path, required: true, schema: {type: integer}}]
          responses: {200: {description: Written.}}
        """
        return str(number)

    @app.get("/open")
    @public
    def open_to_all() -> str:
        """Open.
        ---
        get: {responses: {200: {description: Open.}}}
        """
        return "open"

    spec = APISpec("Items", "1.0.0", version, plugins=[FlaskPlugin()])
    with app.test_request_context():
        spec.path(view=app.view_functions["write"])
        spec.path(view=app.view_functions["open_to_all"])
        return merge(spec.to_dict(), m9m.openapi())


def with_apiflask(secured: Secured, version: str) -> dict[str, Any]:
    app = APIFlask("app", title="Items", version="1.0.0")
    app.config["OPENAPI_VERSION"] = version
    m9m: M9M
    _, m9m = secured(app)

    @app.put("/items/<int:number>")
    @require_auth(scopes="items:write", roles="editor")
    def write(number: int) -> str:
        return str(number)

    @app.get("/open")
    @public
    def open_to_all() -> str:
        return "open"

    @app.spec_processor
    def secure(spec: dict[str, Any]) -> dict[str, Any]:
        return merge(spec, m9m.openapi())

    return served(app)


def with_smorest(secured: Secured, version: str) -> dict[str, Any]:
    app = Flask("app")
    app.config.update(
        API_TITLE="Items",
        API_VERSION="1.0.0",
        OPENAPI_VERSION=version,
        OPENAPI_URL_PREFIX="/",
    )
    _, m9m = secured(app)
    api = Api(app)
    items = Blueprint("items", "items")

    @items.route("/items/<int:number>")
    class Item(MethodView):
        @items.response(200)
        @require_auth(scopes="items:write", roles="editor")
        def put(self, number: int) -> str:
            return str(number)

    @items.route("/open")
    @items.response(200)
    @public
    def open_to_all() -> str:
        return "open"

    api.register_blueprint(items)
    with app.app_context():
        secured_document = merge(api.spec.to_dict(), m9m.openapi())
    for part in ("components", "paths"):
        api.spec.options[part] = secured_document[part]
    return served(app)


def served(app: Flask) -> dict[str, Any]:
    document = app.test_client().get("/openapi.json").json
    assert isinstance(document, dict)
    return document


LIBRARIES = (with_apispec, with_apiflask, with_smorest)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_body_of_a_refusal_is_described_unless_the_library_writes_it(
    secured: Secured, library: Any
) -> None:
    apps: list[Flask] = []
    document = library(lambda app=None: apps.append(app) or secured(app), "3.1.0")
    answer = document["components"]["responses"]["M9MUnauthorized"]
    assert "WWW-Authenticate" in answer["headers"]
    ours = apps[0] is None
    assert ("content" in answer) is ours
    if not ours:
        body = apps[0].test_client().put("/items/1").json
        assert isinstance(body, dict)
        assert "error" not in body


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_librarys_document_has_the_requirements_of_the_routes(
    secured: Secured, library: Any, version: str
) -> None:
    check(library(secured, version), version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_librarys_document_is_still_valid(secured: Secured, library: Any, version: str) -> None:
    validate(library(secured, version))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_document_of_our_own_routes_is_valid(secured: Secured, version: str) -> None:
    app, m9m = secured(
        api={"enabled": True},
        metrics={"enabled": True},
        security={"jwt": {"cookie": {"enabled": True}}, "basic_auth": {"enabled": True}},
    )
    document = {"openapi": version, "info": {"title": "Ours", "version": "1"}}
    with app.app_context():
        document = merge(document, m9m.openapi(), add=True)
    assert "/api/v1/auth/login" in document["paths"]
    validate(document)
