"""Quotas and pages of the REST API: what one owner may have, and how lists are read."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask

from flask_m9m import M9M
from flask_m9m.errors import Conflict
from flask_m9m.testing import client_as, make_settings
from tests.databases import settle

KEYS, CREDENTIALS = "/api/v1/api-keys", "/api/v1/credentials"
CREDENTIAL = {"name": "one", "type": "apiKey", "data": {"apiKey": "x"}}


@pytest.fixture(params=["database", "memory"])
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app(database_url: str, storage: str) -> Any:
    app = Flask("app")
    app.testing = True
    settings = {
        "database": {"url": database_url},
        "api": {"enabled": True},
        "security": {"api_keys": {"max_per_owner": 3}},
        "credentials": {"encryption_key": "A" * 43 + "=", "max_per_owner": 3, "storage": storage},
    }
    M9M(app, settings=make_settings(settings))
    app.extensions["m9m"].database.upgrade()
    yield app
    settle()
    app.extensions["m9m"].database.close()


@pytest.mark.parametrize(("path", "body"), [(KEYS, {"name": "one"}), (CREDENTIALS, CREDENTIAL)])
def test_one_too_many_is_409_for_its_owner_alone(app: Flask, path: str, body: Any) -> None:
    ann, bob = client_as(app, "ann", fresh=True), client_as(app, "bob", fresh=True)
    assert [ann.post(path, json=body).status_code for _ in range(3)] == [201] * 3
    answer = ann.post(path, json=body)
    assert (answer.status_code, answer.json["code"]) == (409, "CONFLICT")
    assert "3" in answer.json["message"]
    assert bob.post(path, json=body).status_code == 201
    assert ann.delete(f"{path}/{ann.get(path).json['data'][0]['id']}").status_code == 204
    assert ann.post(path, json=body).status_code == 201


@pytest.mark.parametrize(("path", "body"), [(KEYS, {"name": "one"}), (CREDENTIALS, CREDENTIAL)])
def test_a_list_comes_in_pages(app: Flask, path: str, body: Any) -> None:
    ann = client_as(app, "ann", fresh=True)
    made = [ann.post(path, json={**body, "name": f"n{n}"}).json["id"] for n in range(3)]
    whole = ann.get(path).json
    assert (sorted(row["id"] for row in whole["data"]), whole["total"]) == (sorted(made), 3)
    pages = [ann.get(f"{path}?limit=2&offset={offset}").json for offset in (0, 2, 4)]
    assert [row for page in pages for row in page["data"]] == whole["data"]
    assert [len(page["data"]) for page in pages] == [2, 1, 0]
    assert [page["total"] for page in pages] == [3, 3, 3]


@pytest.mark.parametrize("path", [KEYS, CREDENTIALS])
@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=", "limit=1&limit=2", "offset=-1", "limit=²"]
    + [f"offset={'9' * n}" for n in (10, 5_000)],
)
def test_a_page_that_cannot_be_is_400(app: Flask, path: str, query: str) -> None:
    answer = client_as(app, "ann").get(f"{path}?{query}")
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert answer.json["details"][0]["field"] == query.partition("=")[0]


@pytest.mark.parametrize("kind", ["keys", "credentials"])
def test_threads_together_make_no_more_than_allowed(app: Flask, kind: str) -> None:
    identities, refused = app.extensions["m9m"].identities, []
    credentials = app.extensions["m9m"].credentials

    def make() -> None:
        with app.app_context():
            try:
                if kind == "keys":
                    identities.api_keys.create("one", "ann", most=3)
                else:
                    credentials.create(**CREDENTIAL, owner="ann", most=3)
            except Conflict as error:
                refused.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 5
