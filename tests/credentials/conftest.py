from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from flask import Flask

from flask_m9m import M9M
from flask_m9m.testing import Clock, make_settings
from tests.databases import settle

Kept = Callable[..., tuple[Flask, M9M]]


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def key() -> str:
    """The first encryption key of a test."""
    return new_key()


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def storage(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of each place where credentials are kept."""
    if request.param == "memory":
        return {"credentials": {"storage": "memory"}}
    return {"database": {"url": request.getfixturevalue(f"{request.param}_url")}}


@pytest.fixture
def keep(clock: Clock) -> Iterator[Callable[..., tuple[Flask, M9M]]]:
    """Return a function that makes an app as another process would."""
    apps = []

    def make(
        storage: dict[str, Any], key: str, previous: Sequence[str] = (), **credentials: Any
    ) -> tuple[Flask, M9M]:
        app = Flask("app")
        own = {"encryption_key": key, "previous_keys": list(previous), **credentials}
        settings = {**storage, "credentials": {**storage.get("credentials", {}), **own}}
        m9m = M9M(app, settings=make_settings(settings), clock=clock)
        if "database" in storage:
            app.extensions["m9m"].database.upgrade()
        apps.append(app)
        return app, m9m

    yield make
    settle()
    for app in apps:
        app.extensions["m9m"].database.close()
