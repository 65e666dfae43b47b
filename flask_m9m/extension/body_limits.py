"""How large a request may be: the settings that Flask enforces, and the answer to larger ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from ..errors import M9MError

if TYPE_CHECKING:
    from flask import Flask

    from ..settings.server import ServerLimits

_FLASK_DEFAULTS = {
    "MAX_CONTENT_LENGTH": None,
    "MAX_FORM_MEMORY_SIZE": 500_000,
    "MAX_FORM_PARTS": 1_000,
}


class ContentTooLarge(HTTPException, M9MError):
    """A body, or a part of a form, is larger than is read (RFC 9110 §15.5.14).

    It is no `RequestEntityTooLarge`: the handler that makes it of one would find it again.
    """

    code = 413
    error_code = "CONTENT_TOO_LARGE"
    description = "The request's body is larger than is accepted"


def limit_sizes(app: Flask, limits: ServerLimits) -> None:
    """Set the limits that an app has not set itself, and answer what is beyond them.

    The app's own handlers come first: one for 413 takes the place of this one, and one for
    `HTTPException` gets a `ContentTooLarge`.
    """
    given = {
        "MAX_CONTENT_LENGTH": limits.max_body_size,
        "MAX_FORM_MEMORY_SIZE": limits.max_form_memory_size,
        "MAX_FORM_PARTS": limits.max_form_parts,
    }
    for name, default in _FLASK_DEFAULTS.items():
        if app.config.get(name, default) == default:
            app.config[name] = given[name]

    def too_large(error: RequestEntityTooLarge) -> Any:
        return app.handle_user_exception(ContentTooLarge())

    if RequestEntityTooLarge not in app.error_handler_spec[None][RequestEntityTooLarge.code]:
        app.register_error_handler(RequestEntityTooLarge, too_large)
