"""Logs: what the lines of the logger `flask_m9m` say of the request during which they are written.

Each record has an attribute `request_id`, `-` where there is no request. A format shows it:

    %(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s
"""

from __future__ import annotations

import logging

from flask import has_request_context

from ..guard.request_ids import REQUEST_ID
from .app_state import current_request

LOGGER = logging.getLogger("flask_m9m")


class RequestIds(logging.Filter):
    """Lets every record pass, and gives it the current request's id."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Set `record.request_id`."""
        # Not by the exchange: whoever writes the line may be about to make the guard of it.
        found = current_request().environ.get(REQUEST_ID) if has_request_context() else None
        record.request_id = found or "-"
        return True


_REQUEST_IDS = RequestIds()


def mark_lines() -> None:
    """Have the lines of our own logger, and of no other, name their request."""
    LOGGER.addFilter(_REQUEST_IDS)
