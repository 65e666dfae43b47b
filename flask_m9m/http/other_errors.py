"""The app's own HTTP errors, such as 404 and 405, in the format of ours (`security.errors.all`)."""

from __future__ import annotations

import re
from http import HTTPStatus

from werkzeug.exceptions import HTTPException

from ..errors import M9MError

_NO_WORD = re.compile(r"\W")
_STATUSES = frozenset(status.value for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST)


class OtherError(M9MError):
    """An HTTP error that the app, Flask or Werkzeug has raised.

    Its `code` in the body is the status's name: `NOT_FOUND`, `METHOD_NOT_ALLOWED`. The message is
    the description of the error that was raised.
    """

    def __init__(self, error: HTTPException) -> None:
        super().__init__()
        self.code = error.code or 500
        own = error.description if isinstance(error.description, str) else None
        name = _NO_WORD.sub("", error.name.upper().replace(" ", "_"))
        self.error_code = "INTERNAL_ERROR" if self.code == 500 else name
        self.description = own or error.name
        # Such as `Allow` and `Retry-After`.
        self.headers = [field for field in error.get_headers() if field[0] != "Content-Type"]


def other_error(error: HTTPException) -> OtherError | None:
    """Make an error in our format; `None` for a redirect, a ready response or an unknown status."""
    if error.response is not None or error.code not in _STATUSES:
        return None
    return OtherError(error)
