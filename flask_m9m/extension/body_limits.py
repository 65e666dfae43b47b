"""Body limits: the largest request body, form and number of parts, and the 413 response."""

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
    """The request body, or a part of a form, is too large (RFC 9110 §15.5.14).

    Not a subclass of `RequestEntityTooLarge`, or our handler would handle its own error.
    """

    code = 413
    error_code = "CONTENT_TOO_LARGE"
    description = "The request body is too large"


def limit_sizes(app: Flask, limits: ServerLimits) -> None:
    """Set the size limits that the app has not set itself, and answer larger requests with 413.

    The app's own error handlers come first: a handler for 413 replaces ours, and a handler for
    `HTTPException` gets a `ContentTooLarge`.

    Args:
        app: the app; values in its `config` that differ from Flask's defaults are kept.
        limits: the limits of the settings.
    """
    configured = {
        "MAX_CONTENT_LENGTH": limits.max_body_size,
        "MAX_FORM_MEMORY_SIZE": limits.max_form_memory_size,
        "MAX_FORM_PARTS": limits.max_form_parts,
    }
    for name, default in _FLASK_DEFAULTS.items():
        if app.config.get(name, default) == default:
            app.config[name] = configured[name]

    def answer_too_large(error: RequestEntityTooLarge) -> Any:
        return app.handle_user_exception(ContentTooLarge())

    if RequestEntityTooLarge not in app.error_handler_spec[None][RequestEntityTooLarge.code]:
        app.register_error_handler(RequestEntityTooLarge, answer_too_large)
