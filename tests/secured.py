from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from flask_m9m import M9M, current_identity, require_auth
from flask_m9m.testing import Clock, make_settings
from tests.databases import settle

Secured = Callable[..., tuple[Flask, M9M]]


@pytest.fixture
def secured(database_url: str, clock: Clock) -> Iterator[Secured]:
    """Return a function that makes an app as another process would, on one database."""
    apps = []

    def secure(api: bool = False, **security: Any) -> tuple[Flask, M9M]:
        app = Flask("app")
        app.testing = True
        settings = {
            "database": {"url": database_url},
            "security": security,
            "api": {"enabled": api},
        }
        m9m = M9M(app, settings=make_settings(settings), clock=clock)
        app.extensions["m9m"].database.upgrade()
        apps.append(app)

        @app.get("/x")
        @require_auth
        def view() -> Any:
            return {
                "subject": current_identity.subject,
                "scheme": current_identity.scheme,
                "scopes": sorted(current_identity.scopes),
                "roles": sorted(current_identity.roles),
                "key": current_identity.credential_id,
            }

        @app.get("/write")
        @require_auth(scopes="items:write")
        def write() -> str:
            return "written"

        return app, m9m

    yield secure
    settle()
    for app in apps:
        app.extensions["m9m"].database.close()
