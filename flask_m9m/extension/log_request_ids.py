"""Request ids in logs: the attribute `request_id` on records of the logger `flask_m9m`.

It is `-` outside a request. A format string shows it:

    %(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s
"""

from __future__ import annotations

import logging

from flask import has_request_context

from ..guard.request_ids import REQUEST_ID
from .app_state import current_request

LOGGER = logging.getLogger("flask_m9m")


class RequestIds(logging.Filter):
    """Adds the current request's id to every log record; it drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Set `record.request_id`."""
        # Not from the exchange: it needs the guard, which may be logging while it is being made.
        request_id = current_request().environ.get(REQUEST_ID) if has_request_context() else None
        record.request_id = request_id or "-"
        return True


_REQUEST_IDS = RequestIds()


def add_request_ids() -> None:
    """Add request ids to the records of the logger `flask_m9m`, and of no other."""
    LOGGER.addFilter(_REQUEST_IDS)
