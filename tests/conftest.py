from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck
from hypothesis import settings as properties

from flask_m9m import M9M
from flask_m9m.testing import Clock, make_settings

pytest_plugins = ["tests.databases", "tests.redis_servers", "tests.secured"]

if "M9M_TEST_SECRETS_SEEN" in os.environ:  # before other modules take the names that it wraps
    from tests.secrets_seen import write_down

    write_down(Path(os.environ["M9M_TEST_SECRETS_SEEN"]))

# A busy machine is no fault of a property's: no deadline, and no complaint about slow inputs.
properties.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
properties.load_profile("busy")

MakeApp = Callable[..., Flask]

CHALLENGES = ['Bearer realm="m9m"', 'ApiKey realm="m9m", header="X-API-Key"']
"""What the schemes that are on by default ask for."""


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("M9M_", "N8N_", "FLASK_")) and not name.startswith("M9M_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def shared_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Where the rate limits of this test's apps lie, unless they are in other processes."""
    path = tmp_path_factory.mktemp("shm")
    monkeypatch.setattr("flask_m9m.processes.shared_directory.SHARED_MEMORY", path)
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_app(clock: Clock) -> MakeApp:
    """Return a function that makes an app, secured under the given settings."""

    def make(settings: Mapping[str, Any] | None = None, **config: Any) -> Flask:
        app = Flask("app")
        app.config.update({"TESTING": True, **config})
        M9M(app, settings=make_settings(settings), clock=clock)
        return app

    return make


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app()


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client() as client:
        yield client
