"""The REST API's sessions: a caller lists its own and ends one or all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from flask_m9m import M9M
from flask_m9m.testing import Clock
from tests.secured import Secured

URL = "/api/v1/auth/sessions"


@pytest.fixture
def made(secured: Secured) -> Iterator[tuple[FlaskClient, M9M]]:
    app, m9m = secured(api=True, jwt={"secret": "x1" * 32}, basic_auth={"enabled": True})
    with app.app_context():
        yield app.test_client(), m9m


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def rows_of(answer: TestResponse) -> list[dict[str, Any]]:
    assert answer.status_code == 200
    body = answer.get_json()
    assert body["total"] == len(body["data"])
    rows: list[dict[str, Any]] = body["data"]
    return rows


def test_a_caller_lists_its_own_sessions(made: tuple[FlaskClient, M9M], clock: Clock) -> None:
    client, m9m = made
    first = m9m.tokens.issue_pair("ann")
    clock.advance(60.0)
    second = m9m.tokens.issue_pair("ann")
    m9m.tokens.issue_pair("bob")
    rows = rows_of(client.get(URL, headers=bearer(second.access_token)))
    assert [(row["id"], row["current"]) for row in rows] == [
        (second.sid, True),
        (first.sid, False),
    ]
    assert set(rows[0]) == {"id", "createdAt", "refreshedAt", "endsAt", "current"}
    alone = m9m.tokens.issue("ann")
    assert not any(row["current"] for row in rows_of(client.get(URL, headers=bearer(alone))))


def test_a_caller_ends_one_of_its_own_sessions(made: tuple[FlaskClient, M9M]) -> None:
    client, m9m = made
    mine, other, foreign = (m9m.tokens.issue_pair(name) for name in ("ann", "ann", "bob"))
    headers = bearer(mine.access_token)
    assert client.delete(f"{URL}/{other.sid}", headers=headers).status_code == 204
    assert client.get(URL, headers=bearer(other.access_token)).status_code == 401
    for sid in (other.sid, foreign.sid, "x", "%00", "a" * 999):
        assert client.delete(f"{URL}/{sid}", headers=headers).status_code == 404
    assert client.get(URL, headers=bearer(foreign.access_token)).status_code == 200
    assert client.delete(f"{URL}/{mine.sid}", headers=headers).status_code == 204
    assert client.get(URL, headers=headers).status_code == 401


def test_log_out_everywhere(made: tuple[FlaskClient, M9M]) -> None:
    client, m9m = made
    pairs = [m9m.tokens.issue_pair("ann") for _ in range(3)]
    foreign = m9m.tokens.issue_pair("bob")
    answer = client.delete(URL, headers=bearer(pairs[0].access_token))
    assert answer.status_code == 204
    for pair in pairs:
        assert client.get(URL, headers=bearer(pair.access_token)).status_code == 401
    assert client.get(URL, headers=bearer(foreign.access_token)).status_code == 200


def test_only_tokens_list_and_end_sessions(made: tuple[FlaskClient, M9M]) -> None:
    client, m9m = made
    m9m.users.create("ann", "correct horse")
    _, key = m9m.api_keys.create("ci", "ann", ())
    for method in ("GET", "DELETE"):
        for sent in ({}, {"X-API-Key": key}):
            assert client.open(URL, method=method, headers=sent).status_code == 401
        answer = client.open(URL, method=method, auth=("ann", "correct horse"))
        assert answer.status_code == 401
