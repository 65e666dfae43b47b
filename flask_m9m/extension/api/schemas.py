"""JSON schemas of the REST API's bodies, for its OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...credentials.types import CredentialTypes
from .api_keys import NewKey
from .bodies import Body
from .credentials import ChangedCredential, NewCredential
from .sessions import Login, Refresh

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_TIME = {**_TEXT, "format": "date-time"}
_TIME_OR_NULL = {"type": ["string", "null"], "format": "date-time"}
_USER = {"$ref": "#/components/schemas/M9MUser"}


def _object(description: str, **properties: Any) -> dict[str, Any]:
    """Describe an object that has all of these properties."""
    return {
        "type": "object",
        "description": description,
        "required": list(properties),
        "properties": properties,
    }


def _list_of(name: str) -> dict[str, Any]:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    return _object("A list.", data=items, total={"type": "integer", "minimum": 0})


def _change(model: type[Body]) -> dict[str, Any]:
    """Describe the body of a change: what it leaves out stays as it is, and it has something."""
    schema = _body(model)
    for field in schema["properties"].values():
        field.pop("default", None)
    return {**schema, "minProperties": 1}


def _body(model: type[Body]) -> dict[str, Any]:
    """Describe a request's body by its model."""
    schema = model.model_json_schema()
    schema["description"] = schema["description"].replace("\n", " ")
    schema.pop("title", None)
    for field in schema["properties"].values():
        field.pop("title", None)
    return schema


_KEY = {"id": _TEXT, "name": _TEXT, "scopes": _TEXTS, "createdAt": _TIME}

SCHEMAS: dict[str, Any] = {
    "M9MLogin": _body(Login),
    "M9MRefresh": _body(Refresh),
    "M9MNewKey": _body(NewKey),
    "M9MChangedCredential": _change(ChangedCredential),
    "M9MUser": _object("Whose session it is.", username=_TEXT, scopes=_TEXTS, roles=_TEXTS),
    "M9MTokens": _object(
        "The tokens of a session.", token=_TEXT, refreshToken=_TEXT, expiresAt=_TIME, user=_USER
    ),
    "M9MCookieSession": _object(
        "A session whose tokens are in cookies.", csrfToken=_TEXT, expiresAt=_TIME, user=_USER
    ),
    "M9MSession": _object(
        "A session that goes on.",
        id=_TEXT,
        createdAt=_TIME,
        refreshedAt=_TIME,
        endsAt=_TIME,
        current={"type": "boolean", "description": "Whether it is the session of this request."},
    ),
    "M9MSessions": _list_of("M9MSession"),
    "M9MKey": _object(
        "An API key, without its text.",
        **_KEY,
        expiresAt=_TIME_OR_NULL,
        lastUsedAt=_TIME_OR_NULL,
    ),
    "M9MCreatedKey": _object(
        "An API key; no later response has its text.", **_KEY, expiresAt=_TIME_OR_NULL, key=_TEXT
    ),
    "M9MKeys": _list_of("M9MKey"),
    "M9MCredential": _object(
        "A stored credential, without its fields.",
        id=_TEXT,
        name=_TEXT,
        type=_TEXT,
        owner={"type": ["string", "null"]},
        createdAt=_TIME,
        updatedAt=_TIME,
    ),
    "M9MCredentials": _list_of("M9MCredential"),
    "M9MTestResult": {
        "type": "object",
        "description": "Whether the app's checker found the credential to work, and why not.",
        "required": ["success"],
        "properties": {"success": {"type": "boolean"}, "message": _TEXT},
    },
    "M9MHealth": _object("The process answers.", status={"const": "ok"}),
    "M9MReadiness": _object(
        "Which parts that requests depend on are available.",
        status={"enum": ["ready", "unavailable"]},
        parts={"type": "object", "additionalProperties": {"enum": ["ok", "unavailable"]}},
    ),
    "M9MDocument": {"type": "object", "description": "An OpenAPI 3.1 document."},
}


def credential_schemas(types: CredentialTypes) -> dict[str, Any]:
    """Describe a new credential: each of an app's types has required fields of its own."""
    schema = _body(NewCredential)
    schema["oneOf"] = [
        {"properties": {"type": {"const": name}, "data": _data_of(types.required(name))}}
        for name in types
    ]
    return {"M9MNewCredential": schema}


def _data_of(required: Sequence[str]) -> dict[str, Any]:
    filled = {
        "anyOf": [
            {"type": "string", "minLength": 1},
            {"type": ["number", "boolean", "object", "array"]},
        ]
    }
    return {
        "type": "object",
        "required": list(required),
        "properties": {field: filled for field in required},
    }
