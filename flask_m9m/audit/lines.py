"""The trail in the log: one line of JSON for each event, by the logger `flask_m9m.audit`.

    {"time": "2026-01-31T12:00:00.000000Z", "event": "authentication_failed", "outcome": …}

All of it is ASCII without control characters, whatever came in a request, and members that say
nothing are left out. Its level is INFO whatever the app's is: where handlers are, lines are
written.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from ..storage import moment
from .chain import Anchor
from .events import Event

logger = logging.getLogger("flask_m9m.audit")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)

_MEMBERS = ("event", *Event._fields[2:-1])  # after the time; the details come last
_to_json = json.JSONEncoder(separators=(", ", ": ")).encode


def is_read() -> bool:
    """Tell whether anybody takes these lines."""
    return logger.isEnabledFor(logging.INFO) and logger.hasHandlers()


def write_somewhere() -> None:
    """Have lines written to the standard error output, unless a handler takes them already."""
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())  # each is a whole line of its own


def write(event: Event) -> None:
    """Write an event's line."""
    at, *values, details = event.columns()
    members: dict[str, Any] = {"time": _time(at / 1_000_000)}
    members |= {name: value for name, value in zip(_MEMBERS, values, strict=True) if value}
    line = _to_json(members)
    if details is not None:
        line = f'{line[:-1]}, "details": {details}}}'
    logger.info("%s", _of_one_line(line))


def write_anchor(anchor: Anchor, at: float) -> None:
    """Write down where the database's trail ends, for finding that it was put back."""
    logger.info("%s", _to_json({"time": _time(at), "event": "audit_anchor", "anchor": str(anchor)}))


def _time(seconds: float) -> str:
    return f"{moment(seconds):%Y-%m-%dT%H:%M:%S.%f}Z"


def _of_one_line(text: str) -> str:
    """Escape the one character that JSON leaves and a terminal obeys."""
    return text.replace("\x7f", "\\u007f")
