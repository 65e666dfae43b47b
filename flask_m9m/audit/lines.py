"""Audit log lines: each event as one line of JSON, by the logger `flask_m9m.audit`.

    {"time": "2026-01-31T12:00:00.000000Z", "event": "authentication_failed", "outcome": …}

A line is ASCII without control characters, whatever the request contained. Empty members are left
out. The logger's level is INFO unless the app sets another one, so that lines are written wherever
the app has a log handler.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from ..storage.records import moment
from .chain import Anchor
from .events import Event

logger = logging.getLogger("flask_m9m.audit")
if logger.level == logging.NOTSET:
    logger.setLevel(logging.INFO)

_MEMBERS = ("event", *Event._fields[2:-1])  # after the time; the details come last
_to_json = json.JSONEncoder(separators=(", ", ": ")).encode


def is_read() -> bool:
    """Tell whether the log has a handler for these lines."""
    return logger.isEnabledFor(logging.INFO) and logger.hasHandlers()


def write_somewhere() -> None:
    """Log to standard error, unless the app has set up a handler for these lines."""
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())  # without a formatter: a line is JSON alone


def write(event: Event) -> None:
    """Log an event."""
    at, *values, details = event.columns()
    members: dict[str, Any] = {"time": _time(at / 1_000_000)}
    members |= {name: value for name, value in zip(_MEMBERS, values, strict=True) if value}
    line = _to_json(members)
    if details is not None:
        line = f'{line[:-1]}, "details": {details}}}'
    logger.info("%s", _escape_delete(line))


def write_anchor(anchor: Anchor, at: float) -> None:
    """Log the last row of the database's trail, so that a restored old database is detected."""
    logger.info("%s", _to_json({"time": _time(at), "event": "audit_anchor", "anchor": str(anchor)}))


def _time(seconds: float) -> str:
    return f"{moment(seconds):%Y-%m-%dT%H:%M:%S.%f}Z"


def _escape_delete(text: str) -> str:
    """Escape DEL, the only control character that JSON does not escape."""
    return text.replace("\x7f", "\\u007f")
