"""Which passwords users may choose: their length, the commonest, and those of breaches."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, request

from flask_m9m import M9M
from flask_m9m.auth.password_policy import common_passwords
from flask_m9m.testing import make_settings
from tests.bodies import error_of

GOOD = "correct horse"


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


def made(sqlite_url: str, **users: Any) -> tuple[Flask, M9M]:
    app = Flask("app")
    settings = {"database": {"url": sqlite_url}, "security": {"users": users}}
    m9m = M9M(app, settings=make_settings(settings))

    @app.post("/register")
    def register() -> str:
        m9m.users.create(**request.get_json())
        return "welcome"

    return app, m9m


@pytest.mark.parametrize("password", ["password", "PASSWORD", "12345678", "trustno1", "Football"])
def test_common_passwords_are_refused(sqlite_url: str, password: str) -> None:
    app, m9m = made(sqlite_url)
    with app.app_context():
        with pytest.raises(ValueError, match="one of the 10,000 commonest") as caught:
            m9m.users.create("ann", password)
        assert password == "password" or password not in str(caught.value)
        m9m.users.create("ann", GOOD)
        with pytest.raises(ValueError, match="one of the 10,000 commonest"):
            m9m.users.set_password("ann", password)
        assert m9m.users.verify_password("ann", GOOD)


def test_the_settings_decide(sqlite_url: str) -> None:
    app, m9m = made(sqlite_url, refuse_common=False, min_password_length=12)
    with app.app_context():
        with pytest.raises(ValueError, match="must have 12 to 4096 characters"):
            m9m.users.create("ann", "password")
        m9m.users.create("ann", "123456789012")


def test_the_list_has_what_a_shortest_password_may_be() -> None:
    common = common_passwords()
    assert 3_000 < len(common) < 10_000
    assert all(len(password) >= 8 and password == password.lower() for password in common)


def test_a_breach_service_is_asked_and_may_fail(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app, m9m = made(sqlite_url)
    asked: list[str] = []

    @m9m.breach_checker
    def is_breached(password: str) -> bool:
        asked.append(password)
        if password.startswith("down"):
            raise ConnectionError(password)
        return password.startswith("leaked")

    with app.app_context():
        with pytest.raises(ValueError, match="known from a breach"):
            m9m.users.create("ann", "leaked and long")
        m9m.users.create("ann", "down and long")
        m9m.users.set_password("ann", GOOD)
    assert asked == ["leaked and long", "down and long", GOOD]
    assert "the breach service failed (ConnectionError)" in caplog.text
    assert "down and long" not in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", ""),
        ("username", 5),
        ("username", "a:b"),
        ("username", "\ud800"),
        ("password", None),
        ("password", ["x"] * 9),
        ("password", "short"),
        ("password", "password"),
        ("roles", 5),
        ("roles", [{}]),
        ("scopes", 'a"b'),
        ("scopes", {"a": 1.5, "": 2}),
    ],
)
def test_a_wrong_field_is_a_400_in_a_view_that_does_not_catch_it(
    sqlite_url: str, field: str, value: Any
) -> None:
    app, m9m = made(sqlite_url)
    fields = {"username": "ann", "password": GOOD, field: value}
    answer = app.test_client().post("/register", json=fields)
    assert answer.status_code == 400
    body = error_of(answer)
    assert body["code"] == "VALIDATION_ERROR"
    assert [detail["field"] for detail in body["details"]] == [field]
    with app.app_context():
        assert m9m.users.list() == []
