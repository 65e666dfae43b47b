"""Components that all operations share: security schemes, answers, their bodies and headers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from typing import Any
from zlib import crc32

from ..auth import ACCESS, Authenticator
from ..auth.cookies import CSRF_HEADER
from ..errors import PROBLEM_JSON, ErrorFormat
from ..settings import Settings
from ..signing import PARAMETER

SIGNED_URL = "signed_url"
CSRF_TOKEN = "csrf_token"  # noqa: S105

_NO_COMPONENT = re.compile(r"[^A-Za-z0-9._-]")

_STRING = {"type": "string"}
_HEADERS = {
    "M9MWWWAuthenticate": "A challenge for each scheme that has one (RFC 9110 §11.6.1).",
    "M9MRetryAfter": "In how many seconds to try again (RFC 9110 §10.2.3).",
    "M9MRateLimit": "Per limit, the requests left (r) and the seconds until there is one more (t).",
    "M9MRateLimitPolicy": "Per limit, so many requests (q) in so many seconds (w).",
}
ANSWERS = {
    "401": (
        "M9MUnauthorized",
        "No credential came, or it does not hold.",
        {"WWW-Authenticate": "M9MWWWAuthenticate"},
    ),
    "403": (
        "M9MForbidden",
        "The request is not allowed to do this.",
        {"WWW-Authenticate": "M9MWWWAuthenticate"},
    ),
    "429": (
        "M9MTooManyRequests",
        "Too many requests, or too many failed attempts.",
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
        "error": {**_STRING, "description": "The status's reason."},
        "code": {**_STRING, "description": "The machine's word for the cause."},
        "message": _STRING,
        "request_id": _STRING,
    },
}
_PROBLEM = {
    "type": "object",
    "description": "A problem (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {**_STRING, "format": "uri-reference"},
        "title": _STRING,
        "status": {"type": "integer"},
        "detail": _STRING,
        "code": {**_STRING, "description": "The machine's word for the cause."},
        "request_id": _STRING,
        "violated-policies": {"type": "array", "items": _STRING},
    },
}


def component_of(scheme: str) -> str:
    """Return the name of a scheme's component, in the characters that one may have."""
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
    """Return the Security Scheme Objects of the schemes that are switched on.

    Args:
        settings: the app's.
        authenticators: the schemes.
        described: objects that stand in for ours, by the scheme's name.
        signed: whether a route asks for signed URLs.

    Raises:
        ValueError: a scheme that is described is not switched on.
    """
    switched_on = [one.scheme for one in authenticators]
    if unknown := set(described) - set(switched_on):
        known = ", ".join(switched_on) or "none"
        raise ValueError(f"no scheme {min(unknown)!r} is switched on (switched on: {known})")
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
            "description": "Of a session in cookies: the value of __Host-m9m-csrf.",
        }
    if signed:
        found[SIGNED_URL] = {
            "type": "apiKey",
            "in": "query",
            "name": PARAMETER,
            "description": "Part of a URL that the app has signed; clients take it as it is.",
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
            "description": "Or Authorization: Api-Key, with the key behind it.",
        }
    if scheme == "basic":
        return {"type": "http", "scheme": "basic"}
    if scheme == "cookie":
        return {"type": "apiKey", "in": "cookie", "name": ACCESS}
    return {
        "type": "http",
        "scheme": scheme,
        "description": "A scheme of the app's own. Where its credential stands is not known here.",
    }


def components(
    settings: Settings, security: dict[str, dict[str, Any]], unworded: Collection[str]
) -> dict[str, Any]:
    """Return the components of a fragment.

    Args:
        settings: the app's.
        security: its security schemes.
        unworded: statuses of answers whose bodies are not known.
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
            **({} if status in unworded else {"content": content}),
        }
        for status, (name, description, headers) in ANSWERS.items()
    }
    headers = {
        name: {"description": description, "schema": _STRING}
        for name, description in _HEADERS.items()
    }
    shared = {"responses": responses, "schemas": schemas, "headers": headers}
    return {"securitySchemes": security, **deepcopy(shared)}
