from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from flask_m9m import M9M
from flask_m9m.testing import make_settings

Secured = Callable[..., tuple[Flask, M9M]]


@pytest.fixture
def secured() -> Secured:
    """Return a function that secures a given or a new app with settings."""

    def secure(app: Flask | None = None, **settings: Any) -> tuple[Flask, M9M]:
        app = app or Flask("app")
        app.testing = True
        return app, M9M(app, settings=make_settings(settings))

    return secure


def fragment_of(app: Flask, m9m: M9M, **options: Any) -> dict[str, Any]:
    with app.app_context():
        return m9m.openapi(**options)


def answers_of(operation: dict[str, Any]) -> set[str]:
    return set(operation.get("responses", ()))
