"""What paths demand: for Bottle, Django and Falcon, whose routes flask-m9m does not know."""

from __future__ import annotations

from typing import Any

POLICIES: list[dict[str, Any]] = [
    {"prefix": "/public", "access": "public"},
    {"prefix": "/stream", "access": "public"},
    {"prefix": "/fail", "access": "public"},
    {"prefix": "/admin", "scopes": "admin"},
    {"prefix": "/items", "rate_limit": "3/minute", "key": "identity", "name": "items"},
]
