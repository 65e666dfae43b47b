"""A credential's fields, as they are encrypted: JSON in UTF-8."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LONGEST = 1_048_576
"""Octets of a record's data."""


def serialized(data: Mapping[str, Any]) -> bytes:
    """Return a credential's fields as they are encrypted.

    Raises:
        ValueError: they are no JSON object, or longer than 1 MiB.
    """
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise ValueError("a credential's data is an object with texts as names")
    try:
        text = json.dumps(dict(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        octets = text.encode()
    except (TypeError, ValueError, RecursionError):
        raise ValueError("a credential's data is JSON") from None
    if len(octets) > LONGEST:
        raise ValueError(f"a credential's data is at most {LONGEST} octets of JSON")
    return octets


def deserialized(octets: bytes) -> dict[str, Any]:
    """Return a credential's fields."""
    data: dict[str, Any] = json.loads(octets)
    return data
