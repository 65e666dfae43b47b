"""OpenAPI components: security schemes, error responses, their schemas and headers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from typing import Any
from zlib import crc32

from ..auth.schemes.authenticator import Authenticator
from ..auth.schemes.cookie import ACCESS, CSRF_HEADER
from ..auth.signed_links import PARAMETER
from ..errors import PROBLEM_JSON, ErrorFormat
from ..settings.models import Settings

SIGNED_URL = "signed_url"
CSRF_TOKEN = "csrf_token"  # noqa: S105

_NO_COMPONENT = re.compile(r"[^A-Za-z0-9._-]")

_STRING = {"type": "string"}
_DETAILS = {
    "type": "array",
    "description": "Problems of single fields.",
    "items": {
        "type": "object",
        "required": ["field", "message"],
        "properties": {"field": _STRING, "message": _STRING},
    },
}
_HEADERS = {
    "M9MWWWAuthenticate": "The challenges of the accepted schemes (RFC 9110 §11.6.1).",
    "M9MRetryAfter": "The number of seconds to wait before the next attempt (RFC 9110 §10.2.3).",
    "M9MRateLimit": "For each limit: requests left (r), and seconds until another is allowed (t).",
    "M9MRateLimitPolicy": "For each limit: requests allowed (q) in a window of seconds (w).",
}
ANSWERS = {
    "401": (
        "M9MUnauthorized",
        "The credential is missing or invalid.",
        {"WWW-Authenticate": "M9MWWWAuthenticate"},
    ),
    "403": (
        "M9MForbidden",
        "The request is not allowed, for lack of a scope or role, for example.",
        {"WWW-Authenticate": "M9MWWWAuthenticate"},
    ),
    "429": (
        "M9MTooManyRequests",
        "Too many requests, or too many failed attempts to authenticate.",
        {
            "Retry-After": "M9MRetryAfter",
            "RateLimit": "M9MRateLimit",
            "RateLimit-Policy": "M9MRateLimitPolicy",
        },
    ),
}
_ERROR = {
    "type": "object",
    "required": ["error", "code", "message"],
    "properties": {
        "error": {**_STRING, "description": "The reason phrase of the status."},
        "code": {**_STRING, "description": "The cause, as a code for programs."},
        "message": _STRING,
        "details": _DETAILS,
        "request_id": _STRING,
    },
}
_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {**_STRING, "format": "uri-reference"},
        "title": _STRING,
        "status": {"type": "integer"},
        "detail": _STRING,
        "code": {**_STRING, "description": "The cause, as a code for programs."},
        "details": _DETAILS,
        "request_id": _STRING,
        "violated-policies": {"type": "array", "items": _STRING},
    },
}


def component_of(scheme: str) -> str:
    """Map a scheme's name to a component name, which allows fewer characters.

    Args:
        scheme: the name, as in `@require_auth(schemes=…)`.

    Returns:
        The name itself if it is allowed; otherwise a name with dashes and a checksum.
    """
    if scheme in (CSRF_TOKEN, SIGNED_URL) or _NO_COMPONENT.search(scheme):
        return f"{_NO_COMPONENT.sub('-', scheme)}-{crc32(scheme.encode()):08x}"
    return scheme


def security_schemes(
    settings: Settings,
    authenticators: Iterable[Authenticator],
    described: Mapping[str, Mapping[str, Any]],
    *,
    signed: bool,
) -> dict[str, dict[str, Any]]:
    """Describe the schemes that are switched on as Security Scheme Objects.

    Args:
        settings: the app's settings.
        authenticators: the app's authenticators.
        described: objects that replace ours, by the name of the scheme.
        signed: whether any route requires signed URLs.

    Returns:
        The objects, by the name of the component.

    Raises:
        ValueError: `described` has a scheme that is not switched on.
    """
    switched_on = [authenticator.scheme for authenticator in authenticators]
    if unknown := set(described) - set(switched_on):
        known = ", ".join(switched_on) or "none"
        raise ValueError(
            f"schemes has {min(unknown)!r}, which is not switched on; accepted: {known}"
        )
    found = {
        component_of(scheme): deepcopy(dict(described[scheme]))
        if scheme in described
        else _security_scheme(scheme, settings)
        for scheme in switched_on
    }
    if "cookie" in switched_on:
        found[CSRF_TOKEN] = {
            "type": "apiKey",
            "in": "header",
            "name": CSRF_HEADER,
            "description": "For a session in cookies: the value of the cookie __Host-m9m-csrf.",
        }
    if signed:
        found[SIGNED_URL] = {
            "type": "apiKey",
            "in": "query",
            "name": PARAMETER,
            "description": "Part of a URL that the app has signed; clients use the URL unchanged.",
        }
    return found


def _security_scheme(scheme: str, settings: Settings) -> dict[str, Any]:
    if scheme == "bearer":
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    if scheme == "api_key":
        return {
            "type": "apiKey",
            "in": "header",
            "name": settings.security.api_keys.header,
            "description": "Also accepted: Authorization: Api-Key, followed by the key.",
        }
    if scheme == "basic":
        return {"type": "http", "scheme": "basic"}
    if scheme == "cookie":
        return {"type": "apiKey", "in": "cookie", "name": ACCESS}
    return {
        "type": "http",
        "scheme": scheme,
        "description": "A scheme of the app itself; where it expects the credential is not known.",
    }


def components(
    settings: Settings, security: dict[str, dict[str, Any]], own: Collection[str]
) -> dict[str, Any]:
    """Build the `components` of a fragment.

    Args:
        settings: the app's settings.
        security: the security schemes, by the name of the component.
        own: statuses whose error bodies the app writes itself, so that they are not described.
    """
    schemas: dict[str, Any] = {}
    content: dict[str, Any] = {}
    if settings.security.errors.format is not ErrorFormat.PROBLEM:
        schemas["M9MError"] = _ERROR
        content["application/json"] = {"schema": {"$ref": "#/components/schemas/M9MError"}}
    schemas["M9MProblem"] = _PROBLEM
    content[PROBLEM_JSON] = {"schema": {"$ref": "#/components/schemas/M9MProblem"}}
    responses = {
        name: {
            "description": description,
            "headers": {
                field: {"$ref": f"#/components/headers/{header}"}
                for field, header in headers.items()
            },
            **({} if status in own else {"content": content}),
        }
        for status, (name, description, headers) in ANSWERS.items()
    }
    headers = {
        name: {"description": description, "schema": _STRING}
        for name, description in _HEADERS.items()
    }
    shared = {"responses": responses, "schemas": schemas, "headers": headers}
    return {"securitySchemes": security, **deepcopy(shared)}
