"""The app for gunicorn under `flask m9m serve`: loads the app that the command has found."""

from __future__ import annotations

from flask import Flask
from flask.cli import ScriptInfo


def load(path: str | None = None) -> Flask:
    """Load an app as Flask's command line does, and switch its debug mode off."""
    app = ScriptInfo(app_import_path=path, set_debug_flag=False).load_app()
    app.debug = False  # FLASK_DEBUG is for development
    return app
