"""REST API: routes for login, API keys, stored credentials and health, if `api.enabled` is set.

Field names are in camelCase and times in ISO 8601 (UTC). Lists are `{"data": […], "total": n}`.
"""

from __future__ import annotations

from flask import Flask

from .api_keys import blueprint as api_keys
from .credentials import blueprint as credentials
from .document import register_document
from .health import blueprint as health
from .sessions import blueprint as sessions

__all__ = ["register"]


def register(app: Flask, prefix: str) -> None:
    """Register the API's routes with an app.

    Args:
        app: the app.
        prefix: the path before the routes, such as `/api/v1`; the health routes are at the root.
    """
    app.register_blueprint(sessions, url_prefix=f"{prefix}/auth")
    app.register_blueprint(api_keys, url_prefix=f"{prefix}/api-keys")
    app.register_blueprint(credentials, url_prefix=f"{prefix}/credentials")
    app.register_blueprint(health)
    register_document(app, prefix)
