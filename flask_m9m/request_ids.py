"""Request ids: the name under which one request is found in answers and logs.

A trusted proxy's `X-Request-ID` is taken over where it is 1 to 128 of `A-Z a-z 0-9 . _ -`: nothing
that could end a line, colour a terminal, or close a quote. Any other request gets an id of 16
random bytes in hexadecimal.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

HEADER = "X-Request-ID"
REQUEST_ID = "m9m.request_id"
"""Where an environ has the id."""

_VALID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id_of(environ: WSGIEnvironment, *, trusted: bool) -> str:
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
    return os.urandom(16).hex()
