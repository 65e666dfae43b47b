"""Operations of the REST API, by endpoint, for its OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...settings.arguments import LARGEST_OFFSET, MOST_ON_A_PAGE

ERRORS: dict[int, tuple[str, str, tuple[str, ...]]] = {
    400: ("M9MBadRequest", "The request is not valid, or has several credentials.", ()),
    401: ("M9MUnauthorized", "", ()),
    403: ("M9MForbidden", "", ()),
    404: ("M9MNotFound", "It does not exist, or belongs to another owner.", ()),
    409: ("M9MConflict", "The request conflicts with the current state.", ()),
    429: ("M9MTooManyRequests", "", ()),
    500: ("M9MInternalError", "Something is broken; trying again does not help.", ()),
    503: ("M9MUnavailable", "A part that the response needs is unavailable.", ("Retry-After",)),
}
"""The component of each error response, its description and its fields.

Those of 401, 403 and 429 come with the fragment of `m9m.openapi()`.
"""


class Operation(NamedTuple):
    """What the document says of an operation, besides its security.

    Attributes:
        id: its `operationId`.
        tag: the group that it belongs to.
        summary: what it does.
        answers: Response Objects by status.
        errors: statuses of `ERRORS`.
        body: the schema of the request's body; empty if it has none.
        body_required: whether the body is required.
        parameters: Parameter Objects.
    """

    id: str
    tag: str
    summary: str
    answers: Mapping[str, Any]
    errors: tuple[int, ...]
    body: str = ""
    body_required: bool = True
    parameters: tuple[Mapping[str, Any], ...] = ()


def _answer(description: str, *schemas: str, **links: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"description": description}
    references = [{"$ref": f"#/components/schemas/{schema}"} for schema in schemas]
    if references:
        schema = references[0] if len(references) == 1 else {"oneOf": references}
        described["content"] = {"application/json": {"schema": schema}}
    if links:
        described["links"] = links
    return described


def _id(name: str, of: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1}
    described = f"The id of {of}."
    return {"name": name, "in": "path", "required": True, "schema": schema} | {
        "description": described
    }


def _link(operation: str, parameter: str) -> dict[str, Any]:
    return {"operationId": operation, "parameters": {parameter: "$response.body#/id"}}


def _number(name: str, least: int, most: int, default: int, description: str) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": least, "maximum": most, "default": default}
    return {"name": name, "in": "query", "schema": schema, "description": description}


_PAGE = (
    _number("limit", 1, MOST_ON_A_PAGE, 100, "How many are listed."),
    _number("offset", 0, LARGEST_OFFSET, 0, "How many are left out before them."),
)
_MANAGED = (400, 401, 403, 429, 503)
_KEY = (_id("key_id", "an API key"),)
_CREDENTIAL = (_id("credential_id", "a credential"),)
_NONE = {"204": _answer("Done.")}
_SESSION = {"200": _answer("A session.", "M9MTokens", "M9MCookieSession")}

OPERATIONS: dict[str, Operation] = {
    "m9m_sessions.login": Operation(
        "login",
        "sessions",
        "Begin a session with a username and a password.",
        _SESSION,
        (400, 401, 403, 409, 429, 503),
        "M9MLogin",
    ),
    "m9m_sessions.refresh": Operation(
        "refresh",
        "sessions",
        "Exchange a refresh token, which is good once, for new tokens.",
        _SESSION,
        (400, 401, 403, 409, 429, 503),
        "M9MRefresh",
        body_required=False,
    ),
    "m9m_sessions.logout": Operation(
        "logout", "sessions", "End the session of the access token.", _NONE, (*_MANAGED, 409)
    ),
    "m9m_sessions.list_sessions": Operation(
        "listSessions",
        "sessions",
        "List the caller's sessions that go on, the newest first.",
        {"200": _answer("The sessions.", "M9MSessions")},
        _MANAGED,
    ),
    "m9m_sessions.end_all_sessions": Operation(
        "endSessions",
        "sessions",
        "End all the caller's sessions, and revoke all tokens; API keys stay.",
        _NONE,
        _MANAGED,
    ),
    "m9m_sessions.end_session": Operation(
        "endSession",
        "sessions",
        "End one of the caller's sessions, and revoke its tokens.",
        _NONE,
        (*_MANAGED, 404),
        parameters=(_id("sid", "a session"),),
    ),
    "m9m_api_keys.list_keys": Operation(
        "listApiKeys",
        "API keys",
        "List a page of the caller's keys that are not revoked.",
        {"200": _answer("The keys.", "M9MKeys")},
        _MANAGED,
        parameters=_PAGE,
    ),
    "m9m_api_keys.create_key": Operation(
        "createApiKey",
        "API keys",
        "Create a key for the caller.",
        {"201": _answer("The key.", "M9MCreatedKey", revoke=_link("revokeApiKey", "key_id"))},
        (*_MANAGED, 409),
        "M9MNewKey",
    ),
    "m9m_api_keys.revoke_key": Operation(
        "revokeApiKey",
        "API keys",
        "Revoke a key of the caller's.",
        _NONE,
        (*_MANAGED, 404),
        parameters=_KEY,
    ),
    "m9m_credentials.list_credentials": Operation(
        "listCredentials",
        "credentials",
        "List a page of the caller's credentials, of one type where it is named.",
        {"200": _answer("The credentials.", "M9MCredentials")},
        _MANAGED,
        parameters=({"name": "type", "in": "query", "schema": {"type": "string"}}, *_PAGE),
    ),
    "m9m_credentials.create_credential": Operation(
        "createCredential",
        "credentials",
        "Store a credential for the caller.",
        {
            "201": _answer(
                "The credential, without its fields.",
                "M9MCredential",
                show=_link("showCredential", "credential_id"),
                change=_link("changeCredential", "credential_id"),
                test=_link("testCredential", "credential_id"),
                delete=_link("deleteCredential", "credential_id"),
            )
        },
        (*_MANAGED, 409),
        "M9MNewCredential",
    ),
    "m9m_credentials.show_credential": Operation(
        "showCredential",
        "credentials",
        "Show a credential, without its fields.",
        {"200": _answer("The credential.", "M9MCredential")},
        (*_MANAGED, 404),
        parameters=_CREDENTIAL,
    ),
    "m9m_credentials.change_credential": Operation(
        "changeCredential",
        "credentials",
        "Rename a credential, replace all its fields, or both.",
        {"200": _answer("The credential, without its fields.", "M9MCredential")},
        (*_MANAGED, 404, 409),
        "M9MChangedCredential",
        parameters=_CREDENTIAL,
    ),
    "m9m_credentials.delete_credential": Operation(
        "deleteCredential",
        "credentials",
        "Delete a credential.",
        _NONE,
        (*_MANAGED, 404),
        parameters=_CREDENTIAL,
    ),
    "m9m_credentials.test_credential": Operation(
        "testCredential",
        "credentials",
        "Test a credential with the app's checker.",
        {"200": _answer("What the checker found.", "M9MTestResult")},
        (*_MANAGED, 404, 500),
        parameters=_CREDENTIAL,
    ),
    "m9m_health.health": Operation(
        "health",
        "health",
        "Tell that the process answers.",
        {"200": _answer("It does.", "M9MHealth")},
        (),
    ),
    "m9m_health.ready": Operation(
        "ready",
        "health",
        "Tell whether the parts that requests depend on are available.",
        {
            "200": _answer("All are.", "M9MReadiness"),
            "503": _answer("Some are not.", "M9MReadiness"),
        },
        (),
    ),
    "m9m_openapi": Operation(
        "document", "document", "Show this document.", {"200": _answer("It.", "M9MDocument")}, ()
    ),
}
"""The operations by endpoint."""
