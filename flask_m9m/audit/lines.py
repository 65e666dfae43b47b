"""Audit log lines: each event as one line of JSON, by the logger `flask_m9m.audit`.

    {"time": "2026-01-31T12:00:00.000000Z", "event": "authentication_failed", "outcome": …}

A line is ASCII without control characters, whatever the request contained. Empty members are left
out. All lines have the level INFO, and the logger has neither a level nor a handler of its own:
the app's logging decides whether and where they are written. A root logger at WARNING, which is
Python's default, writes none.
"""

from __future__ import annotations

import json
import logging
from functools import cache
from typing import Any

from .chain import Anchor
from .events import Event, iso_time

_MEMBERS = ("event", *Event._fields[2:-1])  # after the time; the details come last
_to_json = json.JSONEncoder(separators=(", ", ": ")).encode


@cache
def _logger() -> logging.Logger:
    """Return the logger, made with the first event.

    `logging.config` disables the loggers that exist when it is called, unless it is told not to.
    An app calls it before its first request, and often after its imports.
    """
    return logging.getLogger("flask_m9m.audit")


def is_read() -> bool:
    """Tell whether the app's logging writes these lines anywhere."""
    logger = _logger()
    if logger.isEnabledFor(logging.INFO):
        return logger.hasHandlers()
    _warn_of_idle_handlers()
    return False


@cache
def _warn_of_idle_handlers() -> None:
    """Warn once if the logger has handlers of its own, to which its level lets no line pass."""
    logger = _logger()
    if logger.handlers and logger.level == logging.NOTSET and not logger.disabled:
        logging.getLogger("flask_m9m").warning(
            "audit: the handlers of the logger %s get no lines, which have the level INFO: set its "
            "level, logging.getLogger(%a).setLevel(logging.INFO)",
            logger.name,
            logger.name,
        )


def write_somewhere() -> None:
    """Log to standard error, unless the app has set up its logging for these lines."""
    logger = _logger()
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())  # without a formatter: a line is JSON alone
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)


def write(event: Event) -> None:
    """Log an event."""
    at, *values, details = event.columns()
    members: dict[str, Any] = {"time": iso_time(at / 1_000_000)}
    members |= {name: value for name, value in zip(_MEMBERS, values, strict=True) if value}
    line = _to_json(members)
    if details is not None:
        line = f'{line[:-1]}, "details": {details}}}'
    _logger().info("%s", _escape_delete(line))


def write_anchor(anchor: Anchor, at: float) -> None:
    """Log the last row of the database's trail, so that a restored old database is detected."""
    _logger().info(
        "%s", _to_json({"time": iso_time(at), "event": "audit_anchor", "anchor": str(anchor)})
    )


def _escape_delete(text: str) -> str:
    """Escape DEL, the only control character that JSON does not escape."""
    return text.replace("\x7f", "\\u007f")
