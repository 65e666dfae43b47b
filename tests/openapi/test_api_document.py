"""The OpenAPI document of the REST API, compared with the API."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from flask import Flask
from openapi_spec_validator import validate

from flask_m9m.extension.api.operations import OPERATIONS
from flask_m9m.testing import client_as

from .conftest import Secured

URL = "/api/v1/openapi.json"
API = {"enabled": True}


def document_of(app: Flask, url: str = URL, **options: Any) -> dict[str, Any]:
    answer = app.test_client().get(url, **options)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    document: dict[str, Any] = answer.json
    validate(document)
    return document


def operations_of(document: dict[str, Any]) -> dict[str, Any]:
    return {
        operation["operationId"]: operation
        for item in document["paths"].values()
        for operation in item.values()
    }


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"security": {"errors": {"format": "problem"}, "default_access": "authenticated"}},
        {"security": {"jwt": {"cookie": {"enabled": True}}, "api_keys": {"enabled": False}}},
        {"api": {"enabled": True, "prefix": "/v2"}},
    ],
)
def test_it_is_valid_and_has_every_route_of_the_api(
    secured: Secured, settings: dict[str, Any]
) -> None:
    app, _ = secured(**{"api": API, **settings})
    app.add_url_rule("/app", "app", lambda: "the app's")
    document = document_of(app, f"{settings.get('api', {}).get('prefix', '/api/v1')}/openapi.json")
    ours = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint.startswith("m9m_")
    }
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert described == ours
    ids = [
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
    ]
    assert len(ids) == len(set(ids)) == len(OPERATIONS) + 1  # /healthz is /health


def test_every_body_and_error_is_described(secured: Secured) -> None:
    operations = operations_of(document_of(secured(api=API)[0]))
    for name, operation in operations.items():
        for status, response in operation["responses"].items():
            described = "$ref" in response or "content" in response or status == "204"
            assert described, (name, status)
        assert ("requestBody" in operation) == (
            name in {"login", "refresh", "createApiKey", "createCredential", "changeCredential"}
        )
    bearer = {"bearer": []}
    assert bearer in operations["listApiKeys"]["security"]
    assert operations["logout"]["security"] == [bearer]
    assert operations["login"]["security"] == operations["health"]["security"] == []


def test_errors_are_of_the_schema_that_it_names(secured: Secured) -> None:
    app, _ = secured(api=API)
    document = document_of(app)
    schemas = document["components"]["schemas"]
    client = client_as(app, "ann", fresh=True)
    for accept, name in (("*/*", "M9MError"), ("application/problem+json", "M9MProblem")):
        answer = client.post("/api/v1/api-keys", json={"name": 7}, headers={"Accept": accept})
        schema = {**schemas[name], "components": document["components"]}
        jsonschema.validate(answer.json, schema)
        assert answer.json["details"]
        unavailable = document["components"]["responses"]["M9MUnavailable"]
        assert answer.content_type in unavailable["content"]
    assert set(unavailable["headers"]) == {"Retry-After"}


def test_a_handler_of_the_apps_own_writes_bodies_that_nobody_describes(secured: Secured) -> None:
    app, _ = secured(api=API)
    app.register_error_handler(404, lambda error: ("gone", 404))
    responses = document_of(app)["components"]["responses"]
    assert "content" not in responses["M9MNotFound"]
    assert "content" in responses["M9MConflict"]


def test_the_types_of_the_app_are_those_of_new_credentials(secured: Secured) -> None:
    app, m9m = secured(api=API)
    m9m.credential_type("ours", required=["token"])
    document = document_of(app)
    schema = {
        "$ref": "#/components/schemas/M9MNewCredential",
        "components": document["components"],
    }
    valid = {"name": "x", "type": "ours", "data": {"token": "t"}}
    jsonschema.validate(valid, schema)
    for wrong in ({"data": {}}, {"data": {"token": ""}}, {"type": "theirs"}, {"owner": "ann"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**valid, **wrong}, schema)


def test_the_server_is_where_the_app_is_mounted(secured: Secured) -> None:
    app, _ = secured(api=API)
    assert document_of(app)["servers"] == [{"url": "/"}]
    mounted = document_of(app, environ_overrides={"SCRIPT_NAME": "/shop"})
    assert mounted["servers"] == [{"url": "/shop"}]


def test_it_is_under_the_general_limit_and_its_route_is_open(secured: Secured) -> None:
    limit = {"enabled": True, "requests_per_minute": 1, "burst": 1, "storage": "memory"}
    app, _ = secured(
        api=API,
        performance={"rate_limit": limit},
        security={"default_access": "authenticated"},
    )
    document = document_of(app)
    assert "429" in operations_of(document)["document"]["responses"]
    assert app.test_client().get(URL).status_code == 429
