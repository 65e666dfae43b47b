"""What requests bring and answers carry."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TypeVar

import pydantic
from flask import request
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from ...errors import ValidationError

_LONGEST = 65_536  # octets of a body that is read
_MOST_DETAILS = 16


class Body(BaseModel):
    """A JSON object: strict types, no names but those that are declared."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        hide_input_in_errors=True,
    )


Sent = TypeVar("Sent", bound=Body)


def read(model: type[Sent]) -> Sent:
    """Return the current request's body.

    Raises:
        ValidationError: it is not such a JSON object; `details` says what is wrong with it, and
            never what was sent.
    """
    if not request.is_json:
        raise ValidationError([{"field": "", "message": "Content-Type is application/json"}])
    body = _octets()
    try:
        json.loads(body, object_pairs_hook=_once_each)
        return model.model_validate_json(body)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        details = [{"field": _path(one["loc"]), "message": one["msg"]} for one in found]
        raise ValidationError(details[:_MOST_DETAILS]) from None
    except (ValueError, RecursionError):
        message = "JSON (RFC 8259), with each name once"
        raise ValidationError([{"field": "", "message": message}]) from None


def _octets() -> bytes:
    """Return the body, which the app may have read before."""
    length = request.content_length
    # Without a length, how much there is shows only when it is read.
    body = request.stream.read(_LONGEST + 1) if length is None else b""
    if (length or len(body)) > _LONGEST:
        raise ValidationError([{"field": "", "message": f"at most {_LONGEST} octets"}])
    return request.get_data() if length is not None else body


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def moment(given: datetime | None) -> str | None:
    """Return a moment as answers name it."""
    if given is None:
        return None
    return given.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _path(loc: tuple[int | str, ...]) -> str:
    """Return where something is wrong; a name that the client chose is not repeated at length."""
    return ".".join(str(part) for part in loc)[:64]
