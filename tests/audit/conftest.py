from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_m9m import M9M, require_auth
from flask_m9m.testing import Clock, make_settings

Audited = Callable[..., tuple[Flask, M9M]]


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def audited(database_url: str, clock: Clock) -> Iterator[Audited]:
    """Return a function that makes an app with a trail in the database, as another process would.

    Further settings are given by section; all apps of one test have one encryption key.
    """
    apps, key = [], new_key()

    def make(audit: dict[str, Any] | None = None, **sections: Any) -> tuple[Flask, M9M]:
        app = Flask("app")
        app.testing = True
        settings = {
            "database": {"url": database_url},
            "audit": {"sinks": ["database"], **(audit or {})},
            "credentials": {"encryption_key": key},
            **sections,
        }
        m9m = M9M(app, settings=make_settings(settings), clock=clock)
        app.extensions["m9m"].database.upgrade()
        apps.append(app)

        @app.get("/x")
        @require_auth(scopes="x")
        def view() -> str:
            return "x"

        return app, m9m

    yield make
    for app in apps:
        app.extensions["m9m"].trail.flush()
        app.extensions["m9m"].database.close()


@pytest.fixture
def trail(audited: Audited) -> Iterator[M9M]:
    """An app's trail with ten rows: `m9m.audit` within the app's context."""
    app, m9m = audited()
    with app.app_context():
        for number in range(1, 11):
            m9m.audit.record("counted", subject=f"user-{number}", number=number)
        yield m9m
