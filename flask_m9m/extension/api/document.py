"""OpenAPI document of the REST API (`GET …/openapi.json`): paths, bodies, errors, security."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from flask import Flask, Response, request

from ...openapi.fragment import path_of
from ...openapi.merging import merge
from ..app_state import AppState, current_state
from ..decorators import public
from ..described_routes import fragment_of, has_error_handler
from .operations import ERRORS, OPERATIONS, Operation
from .schemas import SCHEMAS, credential_schemas

ENDPOINT = "m9m_openapi"

_VERSION = "3.1.1"


def register_document(app: Flask, prefix: str) -> None:
    """Register the document's route with an app.

    The document is built at the first request, when all routes have been declared.

    Args:
        app: the app.
        prefix: the path before the API's routes.
    """
    build: Callable[[], str] = cache(lambda: json.dumps(describe_api(current_state(ENDPOINT))))

    @public
    def show_document() -> Response:
        servers = json.dumps([{"url": request.script_root or "/"}])
        return Response(f'{{"servers": {servers}, {build()[1:]}', mimetype="application/json")

    app.add_url_rule(f"{prefix}/openapi.json", ENDPOINT, show_document, methods=["GET"])


def describe_api(state: AppState) -> dict[str, Any]:
    """Build the document of an app's REST API, an OpenAPI 3.1 document without `servers`.

    Security, rate limits and their errors are those of the app's policies. The description of
    everything else is in `operations`.
    """
    fragment = fragment_of(state)
    described: dict[str, dict[str, Any]] = {}
    for path, method, operation in _operations(state.app):
        described.setdefault(path, {})[method] = _operation(operation, path)
    document = {
        "openapi": _VERSION,
        "info": {
            "title": "REST API of flask-m9m",
            "version": "1",
            "description": "Sessions, API keys, stored credentials and health.",
        },
        "tags": [
            {"name": tag}
            for tag in dict.fromkeys(operation.tag for operation in OPERATIONS.values())
        ],
        "paths": described,
        "components": {
            "schemas": deepcopy(SCHEMAS) | credential_schemas(state.credentials.types),
            "responses": _responses(state.app, fragment),
        },
    }
    return merge(document, fragment)


def _operations(app: Flask) -> Iterator[tuple[str, str, Operation]]:
    """Yield the path, the method in lower case and the description of each operation."""
    for rule in app.url_map.iter_rules():
        operation = OPERATIONS.get(rule.endpoint)
        for method in sorted(rule.methods or ()):
            if operation is not None and method not in ("HEAD", "OPTIONS"):
                yield path_of(rule.rule), method.lower(), operation


def _operation(operation: Operation, path: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        # One view answers /health and /healthz, and an id must be unique.
        "operationId": operation.id + "z" * path.endswith("/healthz"),
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {
            **operation.answers,
            **{str(status): _reference(ERRORS[status][0]) for status in operation.errors},
        },
    }
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.body:
        schema = {"$ref": f"#/components/schemas/{operation.body}"}
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": schema}},
        }
    return deepcopy(described)


def _responses(app: Flask, fragment: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the errors that the fragment does not, in the formats of those that it does."""
    found = fragment["components"]["responses"]
    content = next((one["content"] for one in found.values() if "content" in one), None)
    return {
        name: _response(description, headers, None if has_error_handler(app, status) else content)
        for status, (name, description, headers) in ERRORS.items()
        if name not in found
    }


def _response(
    description: str, headers: Collection[str], content: Mapping[str, Any] | None
) -> dict[str, Any]:
    described: dict[str, Any] = {"description": description}
    if headers:
        described["headers"] = {
            field: {"$ref": f"#/components/headers/M9M{field.replace('-', '')}"}
            for field in headers
        }
    if content is not None:
        described["content"] = deepcopy(dict(content))
    return described


def _reference(response: str) -> dict[str, str]:
    return {"$ref": f"#/components/responses/{response}"}
