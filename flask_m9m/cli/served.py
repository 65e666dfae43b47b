"""The app that gunicorn serves for `flask m9m serve`: the one that the command had found."""

from __future__ import annotations

from flask import Flask
from flask.cli import ScriptInfo


def load(path: str | None = None) -> Flask:
    """Find an app as Flask's command line does, and switch its debug mode off."""
    app = ScriptInfo(app_import_path=path, set_debug_flag=False).load_app()
    app.debug = False  # FLASK_DEBUG is there for development
    return app
