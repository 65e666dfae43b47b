"""An app for several workers that count."""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask

from flask_m9m import M9M
from flask_m9m.testing import make_settings


def create(directory: str) -> Flask:
    app = Flask(__name__, instance_path=directory)
    settings = {
        "metrics": {"enabled": True, "allowed_networks": ["127.0.0.1"]},
        "performance": {"rate_limit": {"path": str(Path(directory) / "shared")}},
    }
    M9M(app, settings=make_settings(settings))
    app.add_url_rule("/pid", "pid", lambda: str(os.getpid()))
    return app
