"""The page about accounts: its app runs, and does what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

PAGE = Path(__file__).parents[2] / "docs" / "accounts.md"
ANN, PASSWORD = "ann@example.com", "correct horse"


class App:
    """The app of the page, with the mail that it has sent."""

    def __init__(self) -> None:
        [source] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        self.names: dict[str, Any] = {"__name__": "accounts"}
        exec(compile(source, "accounts.py", "exec"), self.names)
        self.mail: list[str] = []
        self.names["send_mail"] = lambda address, text: self.mail.append(f"{address} {text}")
        self.client: FlaskClient = self.names["app"].test_client()

    def register(self) -> str:
        answer = self.client.post("/register", json={"email": ANN, "password": PASSWORD})
        assert answer.status_code == 202
        return self.mail[-1].rpartition("/")[2]

    def log_in(self, password: str = PASSWORD) -> Any:
        sent = {"username": ANN, "password": password}
        return self.client.post("/api/v1/auth/login", json=sent)

    def notes(self, token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return self.client.get("/notes", headers=headers).status_code


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")
    monkeypatch.setenv("M9M_JWT_SECRET", "x1" * 32)
    monkeypatch.setenv("M9M_API_ENABLED", "true")
    monkeypatch.setenv("M9M_DATABASE_URL", f"sqlite:///{tmp_path}/m9m.db")
    made = App()
    yield made
    made.names["app"].extensions["m9m"].database.close()


def test_an_account_is_confirmed_by_its_link(app: App) -> None:
    token = app.register()
    assert app.notes(app.log_in().json["token"]) == 403
    assert app.client.get(f"/confirm/{token}x").status_code == 403
    assert app.client.get(f"/confirm/{token}").json == {"confirmed": True}
    assert app.notes(app.log_in().json["token"]) == 200


def test_a_known_address_gets_the_same_answer_and_another_mail(app: App) -> None:
    app.register()
    app.register()
    assert "You have an account already" in app.mail[-1]
    assert app.client.post("/forgot", json={"email": "nobody@example.com"}).status_code == 202
    assert len(app.mail) == 2


@pytest.mark.parametrize("fields", [{}, {"password": "short"}, {"email": ANN}, {"email": 5}])
def test_wrong_fields_are_a_400(app: App, fields: dict[str, object]) -> None:
    assert app.client.post("/register", json=fields).status_code == 400


def test_a_forgotten_password_is_set_anew_once(app: App) -> None:
    app.register()
    old = app.log_in().json["token"]
    app.client.post("/forgot", json={"email": ANN})
    token = app.mail[-1].partition("#")[2]
    confirming = app.mail[0].rpartition("/")[2]
    for wrong in (None, "x", f"{token}x", confirming):
        sent = {"token": wrong, "password": "battery staple"}
        assert app.client.post("/reset", json=sent).status_code == 403
    assert app.client.post("/reset", json={"token": token, "password": "x"}).status_code == 400
    sent = {"token": token, "password": "battery staple"}
    assert app.client.post("/reset", json=sent).status_code == 200
    assert app.client.post("/reset", json=sent).status_code == 403
    assert (app.log_in().status_code, app.log_in("battery staple").status_code) == (401, 200)
    assert app.notes(old) == 401


def test_log_out_everywhere(app: App) -> None:
    app.client.get(f"/confirm/{app.register()}")
    first, second = (app.log_in().json["token"] for _ in range(2))
    headers = {"Authorization": f"Bearer {first}"}
    assert app.client.post("/logout-everywhere", headers=headers).status_code == 204
    assert (app.notes(first), app.notes(second)) == (401, 401)
