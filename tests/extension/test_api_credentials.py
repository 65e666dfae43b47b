"""Stored credentials over REST, in both databases and in memory: no answer tells a secret."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from flask_m9m import M9M
from flask_m9m.errors import NotFound
from flask_m9m.extension.api.credentials import ChangedCredential, NewCredential
from flask_m9m.storage import tables
from flask_m9m.testing import Clock, client_as, make_settings
from tests.bodies import error_of
from tests.databases import settle

URL = "/api/v1/credentials"
SECRET = "hunter2-sk-12345"
SLACK = {"name": "Slack", "type": "slackApi", "data": {"accessToken": SECRET, "team": "ops"}}
Storage = dict[str, Any]
Kept = Callable[..., tuple[Flask, M9M]]


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def storage(request: pytest.FixtureRequest) -> Storage:
    """Settings of each place where credentials are kept."""
    if request.param == "memory":
        url = request.getfixturevalue("sqlite_url")
        return {"database": {"url": url}, "credentials": {"storage": "memory"}}
    return {"database": {"url": request.getfixturevalue(f"{request.param}_url")}}


@pytest.fixture
def in_memory(sqlite_url: str) -> Storage:
    """Settings for what does not depend on the place."""
    return {"database": {"url": sqlite_url}, "credentials": {"storage": "memory"}}


@pytest.fixture
def keep(clock: Clock) -> Iterator[Kept]:
    """Return a function that makes an app with the API as another process would."""
    apps = []

    def make(storage: Storage, key: str | None = None, **credentials: Any) -> tuple[Flask, M9M]:
        app = Flask("app")
        own = {"encryption_key": key or new_key(), **credentials}
        settings = {
            "api": {"enabled": True},
            **storage,
            "credentials": {**storage.get("credentials", {}), **own},
        }
        m9m = M9M(app, settings=make_settings(settings), clock=clock)
        app.extensions["m9m"].database.upgrade()
        apps.append(app)
        return app, m9m

    yield make
    settle()
    for app in apps:
        app.extensions["m9m"].database.close()


@pytest.fixture(autouse=True)
def _no_log_line_tells_a_secret(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    written = logging.Formatter()
    lines = [written.format(one) for one in caplog.get_records("call")]
    assert lines
    assert SECRET not in "\n".join(lines)


def error(answer: Any) -> tuple[int, str]:
    """Return an answer's status and code; there is no secret in it."""
    assert SECRET not in answer.text + repr(answer.headers)
    return answer.status_code, answer.json["code"]


def made_by(client: FlaskClient, **changes: Any) -> str:
    answer = client.post(URL, json={**SLACK, **changes})
    assert answer.status_code == 201, answer.text
    return str(answer.json["id"])


def change(app: Flask, **values: Any) -> None:
    """Change every row as somebody with access to the database could."""
    with app.extensions["m9m"].database._connected().begin() as connection:
        connection.execute(sa.update(tables.credentials).values(**values))


# What is kept, and what is told of it


def test_a_credential_is_kept_listed_changed_and_deleted_and_never_told(
    storage: Storage, keep: Kept, clock: Clock
) -> None:
    app, m9m = keep(storage)
    ann = client_as(app, "ann")
    made = ann.post(URL, json=SLACK)
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    assert made.json == {
        "id": made.json["id"],
        "name": "Slack",
        "type": "slackApi",
        "owner": "ann",
        "createdAt": "2025-06-15T15:06:40Z",
        "updatedAt": "2025-06-15T15:06:40Z",
    }
    path = f"{URL}/{made.json['id']}"
    assert ann.get(path).json == made.json
    assert ann.get(URL).json == {"data": [made.json], "total": 1}

    clock.advance(5.0)
    changed = ann.put(path, json={"name": "Other", "data": {"accessToken": f"{SECRET}!"}})
    assert changed.status_code == 200
    assert changed.json == {**made.json, "name": "Other", "updatedAt": "2025-06-15T15:06:45Z"}
    assert ann.put(path, json={"name": "Third"}).json["name"] == "Third"
    with app.app_context():
        assert m9m.credentials.get(made.json["id"]).data == {"accessToken": f"{SECRET}!"}

    deleted = ann.delete(path)
    assert (deleted.status_code, deleted.data) == (204, b"")
    assert error(ann.get(path)) == (404, "NOT_FOUND")
    assert ann.get(URL).json == {"data": [], "total": 0}


def test_a_list_is_of_one_type_where_it_is_asked_to(
    storage: Storage, keep: Kept, clock: Clock
) -> None:
    app, m9m = keep(storage)
    m9m.credential_type("acme", ["token"])
    ann = client_as(app, "ann")
    made_by(ann)
    clock.advance(1.0)
    acme = made_by(ann, type="acme", data={"token": SECRET})
    assert [one["id"] for one in ann.get(f"{URL}?type=acme").json["data"]] == [acme]
    for type in ("none", "", "a%00b", "%ff", "x" * 2_000, "' OR 1=1 --"):
        answer = ann.get(f"{URL}?type={type}")
        assert (answer.status_code, answer.json) == (200, {"data": [], "total": 0})


def test_values_are_literal(
    in_memory: Storage, keep: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("M9M_ENCRYPTION_KEY", new_key())
    monkeypatch.setenv("ALLOWED", "of the environment")
    app, m9m = keep(in_memory, environment=["ALLOWED"])
    data = {"accessToken": "${M9M_ENCRYPTION_KEY}", "team": "${ALLOWED}"}
    made = made_by(client_as(app, "ann"), data=data)
    with app.app_context():
        assert m9m.credentials.get(made).data == data


def test_nobody_writes_a_variable_into_a_credential_that_resolves_them(
    storage: Storage, keep: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLOWED", "of the environment")
    app, m9m = keep(storage, environment=["ALLOWED", "OTHER"])
    with app.app_context():
        made = m9m.credentials.create("x", "apiKey", {"apiKey": "${ALLOWED}"}, "ann", resolve=True)
    ann = client_as(app, "ann")
    refused = ann.put(f"{URL}/{made.id}", json={"data": {"apiKey": "${OTHER}"}})
    assert error(refused) == (409, "CONFLICT")
    assert ann.put(f"{URL}/{made.id}", json={"name": "y"}).status_code == 200
    with app.app_context():
        assert m9m.credentials.get(made.id).data == {"apiKey": "of the environment"}


# Whose they are


def test_anothers_credential_does_not_exist(storage: Storage, keep: Kept) -> None:
    app, m9m = keep(storage)
    m9m.credential_checker("slackApi")(lambda credential: True)
    with app.app_context():
        apps = m9m.credentials.create("x", "slackApi", SLACK["data"]).id
    ann, bob = client_as(app, "ann"), client_as(app, "bob")
    anns = made_by(ann)
    for hidden in (anns, apps):
        path = f"{URL}/{hidden}"
        answers = [
            bob.get(path),
            bob.put(path, json={"name": "mine"}),
            bob.put(path, json={"data": {"accessToken": "mine"}}),
            bob.put(path, json={"data": {}}),
            bob.delete(path),
            bob.post(f"{path}/test"),
        ]
        assert {error(one) for one in answers} == {(404, "NOT_FOUND")}
        assert all(error_of(one) == error_of(answers[0]) for one in answers)
    assert bob.get(URL).json["total"] == 0
    assert ann.get(f"{URL}/{anns}").json["name"] == "Slack"


def test_an_admin_sees_the_apps_own_and_everybodys(
    storage: Storage, keep: Kept, clock: Clock
) -> None:
    app, m9m = keep(storage)
    with app.app_context():
        apps = m9m.credentials.create("the app's", "slackApi", SLACK["data"]).id
    clock.advance(1.0)
    anns = made_by(client_as(app, "ann"))
    root = client_as(app, "root", roles=["admin"])
    listed = root.get(URL).json
    assert [(one["id"], one["owner"]) for one in listed["data"]] == [(apps, None), (anns, "ann")]
    for path in (f"{URL}/{apps}", f"{URL}/{anns}"):
        assert root.put(path, json={"name": "changed"}).status_code == 200
        assert root.delete(path).status_code == 204
    assert root.post(URL, json=SLACK).json["owner"] == "root"


def test_nobody_without_a_credential_of_their_own_gets_in(in_memory: Storage, keep: Kept) -> None:
    app, _ = keep(in_memory)
    nobody = app.test_client()
    for answer in (
        nobody.get(URL),
        nobody.post(URL, json=SLACK),
        nobody.get(f"{URL}/x"),
        nobody.put(f"{URL}/x", json={"name": "y"}),
        nobody.delete(f"{URL}/x"),
        nobody.post(f"{URL}/x/test"),
    ):
        assert error(answer) == (401, "AUTH_REQUIRED")


def test_a_caller_without_a_name_owns_nothing(storage: Storage, keep: Kept) -> None:
    app, m9m = keep(storage)
    with app.app_context():
        apps = m9m.credentials.create("x", "slackApi", SLACK["data"]).id
    m9m.identity_loader(lambda identity: replace(identity, subject=""))
    client = client_as(app, "ann")
    assert client.get(URL).json == {"data": [], "total": 0}
    assert error(client.get(f"{URL}/{apps}")) == (404, "NOT_FOUND")
    assert error(client.post(URL, json=SLACK)) == (403, "ACCESS_DENIED")


@pytest.mark.parametrize("name", ["a\0b", "\U0001f600", "x" * 2_000, "' OR 1=1 --"])
def test_a_caller_of_an_odd_name_is_no_other(storage: Storage, keep: Kept, name: str) -> None:
    app, _ = keep(storage)
    made_by(client_as(app, "ann"))
    odd = client_as(app, name)
    assert odd.get(URL).json["data"] == []
    assert odd.post(URL, json=SLACK).status_code < 500


def test_an_api_key_needs_the_scope_for_it(database_url: str, keep: Kept) -> None:
    app, m9m = keep({"database": {"url": database_url}})
    anns = made_by(client_as(app, "ann"))
    with app.app_context():
        _, plain = m9m.api_keys.create("plain", "ann", "items:read")
        _, managing = m9m.api_keys.create("managing", "ann", "m9m:manage")
    client, path = app.test_client(), f"{URL}/{anns}"
    for answer in (
        client.get(URL, headers={"X-API-Key": plain}),
        client.post(URL, json=SLACK, headers={"X-API-Key": plain}),
        client.get(path, headers={"X-API-Key": plain}),
        client.put(path, json={"name": "y"}, headers={"X-API-Key": plain}),
        client.delete(path, headers={"X-API-Key": plain}),
        client.post(f"{path}/test", headers={"X-API-Key": plain}),
    ):
        assert error(answer) == (403, "ACCESS_DENIED")
    assert client.get(path, headers={"X-API-Key": managing}).json["owner"] == "ann"
    made = client.post(URL, json=SLACK, headers={"X-API-Key": managing})
    assert (made.status_code, made.json["owner"]) == (201, "ann")


# Hostile input


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ([SLACK], ""),
        ({**SLACK, "owner": "bob"}, "owner"),
        ({**SLACK, "resolve": True}, "resolve"),
        ({**SLACK, "id": "chosen"}, "id"),
        ({**SLACK, "name": ""}, "name"),
        ({**SLACK, "name": "a\nb"}, "name"),
        ({**SLACK, "name": "x" * 256}, "name"),
        ({**SLACK, "name": [SECRET]}, "name"),
        ({**SLACK, "name": f"{SECRET}\0"}, "name"),
        ({**SLACK, "type": SECRET}, "type"),
        ({**SLACK, "type": ""}, "type"),
        ({**SLACK, "type": "SlackApi"}, "type"),
        ({**SLACK, "type": None}, "type"),
        ({**SLACK, "data": None}, "data"),
        ({**SLACK, "data": SECRET}, "data"),
        ({**SLACK, "data": [SECRET]}, "data"),
        ({**SLACK, "data": {}}, "data"),
        ({**SLACK, "data": {"accessToken": "", "token": SECRET}}, "data"),
        ({**SLACK, "data": {"accessToken": None, "token": SECRET}}, "data"),
        ({**SLACK, "data": {"accessToken": float("nan"), "token": SECRET}}, "data"),
        ({**SLACK, "data": {"accessToken": SECRET + "x" * 70_000}}, ""),
    ],
)
def test_what_is_no_credential_is_400_and_says_where(
    in_memory: Storage, keep: Kept, body: Any, field: str
) -> None:
    app, _ = keep(in_memory)
    ann = client_as(app, "ann")
    answer = ann.post(URL, json=body)
    assert error(answer) == (400, "VALIDATION_ERROR")
    assert answer.json["details"][0]["field"] == field
    assert answer.json["details"][0]["message"]
    assert ann.get(URL).json["total"] == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        f'"{SECRET}"',
        f'{{"name": "x", "type": "slackApi", "data": {{"accessToken": "{SECRET}\\ud800"}}}}',
        '{"name": "\\ud800", "type": "slackApi", "data": {"accessToken": "x"}}',
        '{"name": "x", "type": "slackApi", "data": {"accessToken": ' + "[" * 30_000 + "}}",
        '{"name": "x", "type": "slackApi", "data": {"accessToken": ' + "9" * 60_000 + "}}",
        '{"name": "x", "type": "slackApi", "data": {"accessToken": 1e999}}',
        f'{{"name": "x", "type": "slackApi", "data": {{"accessToken": "{SECRET}"}}}} trailing',
    ],
)
def test_a_body_that_is_no_json_of_ours_is_400(in_memory: Storage, keep: Kept, text: str) -> None:
    app, _ = keep(in_memory)
    ann = client_as(app, "ann")
    made = made_by(ann)
    for send, path in ((ann.post, URL), (ann.put, f"{URL}/{made}")):
        answer = send(path, data=text.encode(), content_type="application/json")
        assert error(answer) == (400, "VALIDATION_ERROR")
    assert error(ann.post(URL, data=json.dumps(SLACK))) == (400, "VALIDATION_ERROR")
    assert ann.get(URL).json["total"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": None},
        {"data": None},
        {"name": ""},
        {"name": f"{SECRET}\n"},
        {"data": {}},
        {"data": {"token": SECRET}},
        {"data": SECRET},
        {"type": "apiKey"},
        {"name": "y", "owner": "bob"},
        {"name": "y", "resolve": True},
    ],
)
def test_what_is_no_change_is_400_and_changes_nothing(
    storage: Storage, keep: Kept, body: Any
) -> None:
    app, m9m = keep(storage)
    ann = client_as(app, "ann")
    made = made_by(ann)
    assert error(ann.put(f"{URL}/{made}", json=body)) == (400, "VALIDATION_ERROR")
    with app.app_context():
        found = m9m.credentials.get(made)
    assert (found.name, found.data, found.resolve) == ("Slack", SLACK["data"], False)


@pytest.mark.parametrize("odd", ["nobody", "a%00b", "%ff", "x" * 2_000, "'; DROP TABLE x;--"])
def test_an_unknown_id_is_404(storage: Storage, keep: Kept, odd: str) -> None:
    app, _ = keep(storage)
    ann = client_as(app, "ann")
    for answer in (
        ann.get(f"{URL}/{odd}"),
        ann.put(f"{URL}/{odd}", json={"name": "y"}),
        ann.delete(f"{URL}/{odd}"),
        ann.post(f"{URL}/{odd}/test"),
    ):
        assert error(answer) == (404, "NOT_FOUND")


def test_what_came_is_not_in_the_repr_of_a_body() -> None:
    logging.getLogger("flask_m9m").info("%r", NewCredential(**SLACK))
    logging.getLogger("flask_m9m").info("%r", ChangedCredential(data=SLACK["data"]))


def test_a_problem_has_the_details_too(in_memory: Storage, keep: Kept) -> None:
    app, _ = keep(in_memory)
    ann = client_as(app, "ann")
    body = {**SLACK, "data": SECRET}
    answer = ann.post(URL, json=body, headers={"Accept": "application/problem+json"})
    assert answer.mimetype == "application/problem+json"
    assert error(answer) == (400, "VALIDATION_ERROR")
    assert answer.json["details"][0]["field"] == "data"


# Trying one out


def test_the_apps_checker_tries_a_credential(storage: Storage, keep: Kept) -> None:
    app, m9m = keep(storage)
    seen = []

    @m9m.credential_checker("slackApi")
    def check(credential: Any) -> None:
        seen.append(credential.data)

    ann = client_as(app, "ann")
    answer = ann.post(f"{URL}/{made_by(ann)}/test")
    assert (answer.status_code, answer.json) == (200, {"success": True})
    assert answer.headers["Cache-Control"] == "no-store"
    assert seen == [SLACK["data"]]


@pytest.mark.parametrize("wrong", [ValueError(SECRET), NotFound(SECRET), OSError(13, SECRET)])
def test_what_a_checker_raises_is_told_by_its_class_alone(
    in_memory: Storage, keep: Kept, wrong: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    app, m9m = keep(in_memory)

    @m9m.credential_checker("slackApi")
    def check(credential: Any) -> None:
        raise wrong

    ann = client_as(app, "ann")
    made = made_by(ann)
    answer = ann.post(f"{URL}/{made}/test")
    message = f"the check raised {type(wrong).__name__}"
    assert (answer.status_code, answer.json) == (200, {"success": False, "message": message})
    assert f"credential {made!r}: {message}" in caplog.text


def test_a_checker_that_returns_false_says_no(in_memory: Storage, keep: Kept) -> None:
    app, m9m = keep(in_memory)
    m9m.credential_checker("slackApi")(lambda credential: False)
    ann = client_as(app, "ann")
    answer = ann.post(f"{URL}/{made_by(ann)}/test")
    assert answer.json == {"success": False, "message": "the check returned False"}


def test_a_variable_that_is_not_there_is_no_success(in_memory: Storage, keep: Kept) -> None:
    app, m9m = keep(in_memory)
    m9m.credential_checker("apiKey")(lambda credential: True)
    with app.app_context():
        data = {"apiKey": f"${{{SECRET}}}"}
        made = m9m.credentials.create("x", "apiKey", data, "ann", resolve=True)
    answer = client_as(app, "ann").post(f"{URL}/{made.id}/test")
    assert answer.status_code == 200
    assert answer.json["success"] is False
    assert SECRET not in answer.text


def test_where_nothing_checks_a_type_there_is_nothing_to_ask(
    in_memory: Storage, keep: Kept
) -> None:
    app, _ = keep(in_memory)
    ann = client_as(app, "ann")
    assert error(ann.post(f"{URL}/{made_by(ann)}/test")) == (404, "NOT_FOUND")


# When a part fails


def refused_as_unavailable(client: FlaskClient, path: str) -> None:
    for answer in (
        client.post(URL, json=SLACK),
        client.put(path, json={"name": "y"}),
        client.post(f"{path}/test"),
    ):
        assert error(answer) == (503, "SERVICE_UNAVAILABLE")
        assert int(answer.headers["Retry-After"]) > 0


def test_without_a_key_it_is_503_and_the_log_names_the_setting(
    database_url: str, keep: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    storage = {"database": {"url": database_url}}
    app, _ = keep(storage)
    made = made_by(client_as(app, "ann"))
    app, m9m = keep(storage, encryption_key=None)
    m9m.credential_checker("slackApi")(lambda credential: True)
    refused_as_unavailable(client_as(app, "ann"), f"{URL}/{made}")
    assert "credentials.encryption_key" in caplog.text
    assert "Traceback" not in caplog.text


def test_without_a_key_that_records_need_it_is_503_and_the_log_names_it(
    database_url: str, keep: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    storage = {"database": {"url": database_url}}
    app, m9m = keep(storage)
    path = f"{URL}/{made_by(client_as(app, 'ann'))}"
    with app.app_context():
        needed = m9m.cipher.keys.primary.id
    app, m9m = keep(storage)
    m9m.credential_checker("slackApi")(lambda credential: True)
    ann = client_as(app, "ann")
    refused_as_unavailable(ann, path)
    assert f"1 credentials need the key {needed}" in caplog.text
    assert "credentials.previous_keys" in caplog.text
    assert "Traceback" not in caplog.text
    assert ann.get(path).json["name"] == "Slack"
    assert ann.get(URL).json["total"] == 1
    assert ann.delete(path).status_code == 204


@pytest.mark.parametrize("columns", [{"owner": "bob"}, {"envelope": "m9m:1:x:y"}])
def test_a_credential_that_does_not_open_is_a_500_of_ours(
    database_url: str, keep: Kept, caplog: pytest.LogCaptureFixture, columns: dict[str, str]
) -> None:
    app, m9m = keep({"database": {"url": database_url}})
    m9m.credential_checker("slackApi")(lambda credential: True)
    made = made_by(client_as(app, "ann"))
    change(app, **columns)
    root = client_as(app, "root", roles=["admin"])
    answer = root.post(f"{URL}/{made}/test")
    assert error_of(answer) == {
        "error": "Internal Server Error",
        "code": "INTERNAL_ERROR",
        "message": "Internal error",
    }
    assert answer.status_code == 500
    assert f"credential {made!r} cannot be decrypted: cipher: message authentication" in caplog.text
    assert "Traceback" not in caplog.text
    assert root.get(f"{URL}/{made}").status_code == 200


def test_a_database_that_is_away_is_503(
    sqlite_url: str, keep: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, _ = keep({"database": {"url": sqlite_url}})
    ann = client_as(app, "ann")
    path = f"{URL}/{made_by(ann)}"
    assert ann.get(URL).status_code == 200  # so that no request reads the feed now

    def away(*_: object) -> None:
        raise sa.exc.OperationalError("SELECT secret", {}, Exception(SECRET))

    monkeypatch.setattr(app.extensions["m9m"].database, "_connected", away)
    for answer in (ann.get(URL), ann.get(path), ann.delete(path), ann.post(URL, json=SLACK)):
        assert error(answer) == (503, "SERVICE_UNAVAILABLE")


def test_nothing_is_served_unless_it_is_asked_for(in_memory: Storage, keep: Kept) -> None:
    app, _ = keep({**in_memory, "api": {"enabled": False}})
    assert client_as(app, "ann").get(URL).status_code == 404
