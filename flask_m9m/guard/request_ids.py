"""Request ids: the `X-Request-ID` that identifies a request in responses and logs.

The id that a trusted proxy sends is used if it has 1 to 128 characters of `A-Z a-z 0-9 . _ -`. So
it cannot end a log line, colour a terminal, or close a quote. Any other request gets a new id, 16
random bytes in hexadecimal.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..processes.forking import watch

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

HEADER = "X-Request-ID"
REQUEST_ID = "m9m.request_id"
"""The environ's key for the id."""

_VALID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_BATCH = 128  # ids per call of `urandom`: a call for each id takes several times as long


class _Supply:
    """Makes new ids in batches; a forked child makes its own."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        watch(self)

    def after_fork(self) -> None:
        self._ids = []

    def take(self) -> str:
        try:
            return self._ids.pop()
        except IndexError:
            digits = os.urandom(16 * _BATCH).hex()
            ids = [digits[start : start + 32] for start in range(0, len(digits), 32)]
            first = ids.pop()
            self._ids = ids
            return first


_supply = _Supply()


def request_id_of(environ: WSGIEnvironment, trusted: bool) -> str:
    """Return a request's valid id, or else a new one.

    Args:
        environ: the request; an id that an outer guard set is kept.
        trusted: whether the request came from a trusted proxy.
    """
    found = environ.get(REQUEST_ID)
    if found is None and trusted:
        found = environ.get("HTTP_X_REQUEST_ID")
    if found is not None and isinstance(found, str) and _VALID.fullmatch(found):
        return found
    return _supply.take()
