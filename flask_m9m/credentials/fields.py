"""Serialization of a credential's fields: JSON in UTF-8, before encryption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LONGEST = 1_048_576
"""Maximum length of a record's JSON, in bytes."""


def serialize(data: Mapping[str, Any]) -> bytes:
    """Serialize a credential's fields to JSON in UTF-8.

    Raises:
        ValueError: the data is not a JSON object, or its JSON is longer than 1 MiB.
    """
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise ValueError("credential data must be a JSON object, a mapping with strings as names")
    try:
        text = json.dumps(dict(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        octets = text.encode()
    except (TypeError, ValueError, RecursionError):
        raise ValueError(
            "credential data must be JSON: objects, arrays, Unicode text, finite numbers, true, "
            "false and null, not nested too deeply"
        ) from None
    if len(octets) > LONGEST:
        raise ValueError(
            f"credential data must be at most {LONGEST} bytes of JSON, found {len(octets)}"
        )
    return octets


def deserialize(octets: bytes) -> dict[str, Any]:
    """Parse the JSON of a credential's fields."""
    data: dict[str, Any] = json.loads(octets)
    return data
