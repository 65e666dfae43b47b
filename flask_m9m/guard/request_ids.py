"""Request ids: the name under which one request is found in answers and logs.

A trusted proxy's `X-Request-ID` is taken over where it is 1 to 128 of `A-Z a-z 0-9 . _ -`: nothing
that could end a line, colour a terminal, or close a quote. Any other request gets an id of 16
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
"""Where an environ has the id."""

_VALID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_AT_ONCE = 128  # random bytes for one id at a time cost several times as much


class _Supply:
    """New ids, made by the hundred; a child process makes its own."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        watch(self)

    def after_fork(self) -> None:
        self._ids = []

    def take(self) -> str:
        try:
            return self._ids.pop()
        except IndexError:
            digits = os.urandom(16 * _AT_ONCE).hex()
            ids = [digits[start : start + 32] for start in range(0, len(digits), 32)]
            first = ids.pop()
            self._ids = ids
            return first


_supply = _Supply()


def request_id_of(environ: WSGIEnvironment, trusted: bool) -> str:
    """Return a request's id, a new one where it brings none that can be used.

    Args:
        environ: the request; the id that a guard further out gave it stays.
        trusted: whether a trusted proxy sent it.
    """
    given = environ.get(REQUEST_ID)
    if given is None and trusted:
        given = environ.get("HTTP_X_REQUEST_ID")
    if given is not None and isinstance(given, str) and _VALID.fullmatch(given):
        return given
    return _supply.take()
