"""The REST API: login, API keys, stored credentials and health, where `api.enabled` is set.

Names are in camelCase, moments in ISO 8601 and UTC, and lists are `{"data": […], "total": n}`.
"""

from __future__ import annotations

from flask import Flask

from .api_keys import blueprint as api_keys
from .credentials import blueprint as credentials
from .health import blueprint as health
from .sessions import blueprint as sessions

__all__ = ["serve"]


def serve(app: Flask, prefix: str) -> None:
    """Add the API's routes to an app; those of health stand at its root."""
    app.register_blueprint(sessions, url_prefix=f"{prefix}/auth")
    app.register_blueprint(api_keys, url_prefix=f"{prefix}/api-keys")
    app.register_blueprint(credentials, url_prefix=f"{prefix}/credentials")
    app.register_blueprint(health)
