"""What requests bring and answers carry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeVar

import pydantic
from flask import request
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from ..errors import ValidationError

_LONGEST = 65_536  # octets of a body that is read


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
    body = request.stream.read(_LONGEST + 1)
    if len(body) > _LONGEST:
        raise ValidationError([{"field": "", "message": f"at most {_LONGEST} octets"}])
    try:
        return model.model_validate_json(body)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        details = [{"field": _path(one["loc"]), "message": one["msg"]} for one in found]
        raise ValidationError(details) from None


def moment(given: datetime | None) -> str | None:
    """Return a moment as answers name it."""
    if given is None:
        return None
    return given.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _path(loc: tuple[int | str, ...]) -> str:
    """Return where something is wrong; a name that the client chose is not repeated at length."""
    return ".".join(str(part) for part in loc)[:64]
