"""What the tests of error bodies share."""

from __future__ import annotations

from typing import Any


def error_of(answer: Any) -> dict[str, Any]:
    """Return an error's body but for the request's id, which is the one on its head."""
    members: dict[str, Any] = dict(answer.json)
    assert members.pop("request_id") == answer.headers["X-Request-ID"]
    return members
