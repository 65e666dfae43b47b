"""A server without our tables: what depends on them is 503, never a wrong credential."""

from __future__ import annotations

from base64 import b64encode

import pytest
from flask import Flask

from flask_m9m import M9M, require_auth
from flask_m9m.auth.api_key_format import make_key
from flask_m9m.testing import make_settings
from tests.databases import settle


@pytest.mark.parametrize("upgrade", [False, True])
def test_what_needs_the_tables_is_503_until_they_are_there(
    postgres_url: str, upgrade: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flask("app")
    settings = {
        "database": {"url": postgres_url, "upgrade": upgrade},
        "api": {"enabled": True},
        "security": {"basic_auth": {"enabled": True}, "lockout": {"enabled": False}},
    }
    m9m = M9M(app, settings=make_settings(settings))
    app.add_url_rule("/x", "x", require_auth(lambda: "x"))
    client = app.test_client()
    basic = b64encode(b"ann:correct horse").decode()
    login = {"username": "ann", "password": "correct horse"}
    answers = {
        "login": client.post("/api/v1/auth/login", json=login).status_code,
        "basic": client.get("/x", headers={"Authorization": f"Basic {basic}"}).status_code,
        "key": client.get("/x", headers={"X-API-Key": make_key("m9m_sk_")}).status_code,
        "ready": client.get("/ready").status_code,
    }
    if upgrade:
        assert answers == {"login": 401, "basic": 401, "key": 401, "ready": 200}
    else:
        assert answers == dict.fromkeys(answers, 503)
        assert "run flask m9m db upgrade" in caplog.text
    with app.app_context():
        app.extensions["m9m"].database.upgrade()
        m9m.users.create("ann", "correct horse")
    settle()
    assert client.post("/api/v1/auth/login", json=login).status_code == 200
    app.extensions["m9m"].database.close()
