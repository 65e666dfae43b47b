"""Merging a fragment into a document."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from flask_m9m import require_auth
from flask_m9m.openapi import merge

from .conftest import Secured, fragment_of

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "t", "version": "1"},
    "security": [{"own": []}],
    "paths": {
        "/x": {
            "parameters": [],
            "get": {
                "summary": "kept",
                "security": [{"own": []}],
                "responses": {"200": {"description": "x"}, 401: {"description": "kept"}},
            },
        },
        "/theirs": {"get": {"responses": {"200": {"description": "x"}}}},
    },
    "components": {
        "schemas": {"Item": {"type": "object"}},
        "securitySchemes": {"own": {"type": "http", "scheme": "x"}, "bearer": {"type": "http"}},
    },
}


@pytest.fixture
def fragment(secured: Secured) -> dict[str, Any]:
    app, m9m = secured()
    for path in ("/x", "/more/<int:number>"):
        view = require_auth(schemes="bearer", scopes="a")(lambda **_: "x")
        app.add_url_rule(path, path[1:5], view, methods=["GET", "PUT"])
    return fragment_of(app, m9m)


def test_operations_keep_their_content_and_get_ours(fragment: dict[str, Any]) -> None:
    before = deepcopy((DOCUMENT, fragment))
    merged = merge(DOCUMENT, fragment)
    operation = merged["paths"]["/x"]["get"]
    assert operation["summary"] == "kept"
    assert operation["security"] == [{"bearer": ["a"]}]
    assert operation["x-m9m"] == {"requirements": [{"scopes": ["a"]}]}
    assert operation["responses"][401] == {"description": "kept"}
    assert list(operation["responses"]) == ["200", 401, "403", "429"]
    assert merged["paths"]["/theirs"] == DOCUMENT["paths"]["/theirs"]
    assert merged["components"]["schemas"].keys() == {"Item", "M9MError", "M9MProblem"}
    schemes = merged["components"]["securitySchemes"]
    assert schemes["own"] == {"type": "http", "scheme": "x"}
    assert schemes["bearer"]["scheme"] == "bearer"
    assert (DOCUMENT, fragment) == before


def test_the_fragment_does_not_share_objects_with_the_document(fragment: dict[str, Any]) -> None:
    merged = merge(DOCUMENT, fragment)
    merged["components"]["responses"].clear()
    merged["paths"]["/x"]["get"]["security"].clear()
    assert fragment["components"]["responses"]
    assert fragment["paths"]["/x"]["get"]["security"]


def test_operations_are_added_only_with_add(fragment: dict[str, Any]) -> None:
    merged = merge(DOCUMENT, fragment)
    assert merged["paths"].keys() == DOCUMENT["paths"].keys()
    assert "put" not in merged["paths"]["/x"]
    merged = merge(DOCUMENT, fragment, add=True)
    assert "put" in merged["paths"]["/x"]
    operation = merged["paths"]["/more/{number}"]["get"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["number"]
    assert list(operation["responses"]) == ["default", "401", "403", "429"]
    assert "parameters" not in merged["paths"]["/x"]["put"]


def test_merging_again_changes_nothing(fragment: dict[str, Any]) -> None:
    once = merge(DOCUMENT, fragment, add=True)
    assert merge(once, fragment, add=True) == once


@pytest.mark.parametrize(("version", "scopes"), [("3.0.3", []), ("3.1.0", ["a"]), ("3.2.0", ["a"])])
def test_in_3_0_scopes_are_only_in_the_extension(
    fragment: dict[str, Any], version: str, scopes: list[str]
) -> None:
    operation = merge({**DOCUMENT, "openapi": version}, fragment)["paths"]["/x"]["get"]
    assert operation["security"] == [{"bearer": scopes}]
    assert operation["x-m9m"]["requirements"][0]["scopes"] == ["a"]


@pytest.mark.parametrize(
    ("document", "found"), [({"swagger": "2.0"}, "no openapi field"), ({"openapi": "2.0"}, "'2.0'")]
)
def test_a_document_of_another_kind_is_refused(document: dict[str, Any], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        merge(document, {})
