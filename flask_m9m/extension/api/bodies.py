"""JSON bodies of the REST API: reading and validating requests, and writing times."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TypeVar

import pydantic
from flask import request
from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic.alias_generators import to_camel

from ...errors import ValidationError
from ...settings.arguments import LARGEST_OFFSET, MOST_ON_A_PAGE

_MAX_BODY = 65_536  # octets
_MAX_DETAILS = 16
_LONGEST_FIELD = 256  # characters
_NUMBER = re.compile(r"[0-9]{1,10}")

NAME: dict[str, JsonValue] = {
    "minLength": 1,
    "maxLength": 255,
    "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$",
    "description": "Printable characters, kept in NFC.",
}
"""What the document says of names. The code that stores a name checks it."""

SCOPE: dict[str, JsonValue] = {"minLength": 1, "pattern": r"^[!#-\[\]-~]+$"}
"""What the document says of scopes (RFC 6749 §3.3)."""


class Body(BaseModel):
    """A JSON object with strict types; names that are not declared are refused."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
    )


Sent = TypeVar("Sent", bound=Body)


def read_body(model: type[Sent]) -> Sent:
    """Parse and validate the current request's body.

    Raises:
        ValidationError: the body is not a JSON object that fits the model. `details` lists the
            problems, and never quotes a value.
    """
    # Werkzeug reads both fields character by character.
    fields = request.headers.get("Content-Type", ""), request.headers.get("Transfer-Encoding", "")
    if max(map(len, fields)) > _LONGEST_FIELD or not request.is_json:
        raise ValidationError([{"field": "", "message": "Content-Type must be application/json"}])
    body = _body_octets()
    try:
        json.loads(body, object_pairs_hook=_check_unique_names)
        return model.model_validate_json(body)
    except pydantic.ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        details = [
            {"field": _path(problem["loc"]), "message": problem["msg"]} for problem in problems
        ]
        raise ValidationError(details[:_MAX_DETAILS]) from None
    except (ValueError, RecursionError):
        message = "the body must be JSON (RFC 8259), each name only once in its object"
        raise ValidationError([{"field": "", "message": message}]) from None


def read_page() -> tuple[int, int]:
    """Read `limit` and `offset` of the query: the page of a list.

    Raises:
        ValidationError: one of them is not a whole number in its range.
    """
    page = []
    for name, default, least, most in (
        ("limit", 100, 1, MOST_ON_A_PAGE),
        ("offset", 0, 0, LARGEST_OFFSET),
    ):
        values = request.args.getlist(name)
        text = values[0] if values else str(default)
        number = int(text) if _NUMBER.fullmatch(text) else -1
        if len(values) > 1 or not least <= number <= most:
            message = f"must be a whole number, {least} to {most}"
            raise ValidationError([{"field": name, "message": message}])
        page.append(number)
    return page[0], page[1]


def _body_octets() -> bytes:
    """Read the body, which the app may have read before.

    Raises:
        ValidationError: the body is too long.
    """
    length = request.content_length
    # Without a Content-Length, only reading the body shows how long it is.
    body = request.stream.read(_MAX_BODY + 1) if length is None else b""
    if (length or len(body)) > _MAX_BODY:
        message = f"the body must have at most {_MAX_BODY} octets"
        raise ValidationError([{"field": "", "message": message}])
    return request.get_data() if length is not None else body


def _check_unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def iso_time(time: datetime | None) -> str | None:
    """Format a time for a response: ISO 8601, UTC, whole seconds."""
    if time is None:
        return None
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _path(loc: tuple[int | str, ...]) -> str:
    """Join the path of an invalid field; it may contain long names that the client sent."""
    return ".".join(str(part) for part in loc)[:64]
