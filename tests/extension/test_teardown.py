"""While a request's contexts are torn down, `m9m.credentials` acts for the request's caller."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Blueprint, Flask, appcontext_tearing_down, stream_with_context

from flask_m9m import M9M, require_auth
from flask_m9m.errors import NotFound
from flask_m9m.testing import client_as, make_settings


@pytest.fixture
def app() -> Flask:
    app = Flask("app")
    app.testing = True
    settings = {"credentials": {"encryption_key": "A" * 43 + "=", "storage": "memory"}}
    m9m = M9M(app, settings=make_settings(settings))
    with app.app_context():
        created = m9m.credentials.create("one", "apiKey", {"apiKey": "secret"}, owner="ann")
    app.config["found"] = found = []

    def look(place: str) -> None:
        try:
            found.append((place, m9m.credentials.get(created.id).data["apiKey"]))
        except NotFound:
            found.append((place, None))

    @app.teardown_request
    def after_request(_error: object) -> None:
        look("request")

    @app.teardown_appcontext
    def after_context(_error: object) -> None:
        look("context")

    @app.get("/mine")
    @require_auth
    def mine() -> str:
        return "mine"

    @app.get("/open")
    def opened() -> str:
        return "open"

    @app.get("/streamed")
    @require_auth
    def streamed() -> Any:
        def parts() -> Iterator[str]:
            look("stream")
            yield "x"

        return app.response_class(stream_with_context(parts()))

    @app.get("/fails/<int(max=3):number>")
    def fails(number: int) -> str:
        raise LookupError

    found.clear()
    return app


def looked(app: Flask) -> list[tuple[str, str | None]]:
    found = list(app.config["found"])
    app.config["found"].clear()
    return found


def test_a_teardown_sees_what_the_caller_of_the_request_sees(app: Flask) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = False
    client_as(app, "ann").get("/mine")
    assert [data for _, data in looked(app)[-2:]] == ["secret", "secret"]
    for path, subject in (("/mine", "bob"), ("/mine", None), ("/open", None), ("/none", None)):
        client = app.test_client() if subject is None else client_as(app, subject)
        app.config["found"].clear()
        client.get(path)
        assert looked(app) == [("request", None), ("context", None)], (path, subject)


def test_a_stream_and_its_teardown_see_what_the_caller_sees(app: Flask) -> None:
    for subject, data in (("ann", "secret"), ("bob", None)):
        client = client_as(app, subject)
        app.config["found"].clear()
        client.get("/streamed")
        assert {found for _, found in looked(app)} == {data}


def test_a_context_of_the_apps_own_is_the_app_itself_also_after_a_request(app: Flask) -> None:
    client = app.test_client()
    with app.app_context():
        client.get("/open")
        app.config["found"].clear()
    assert looked(app) == [("context", "secret")]


@pytest.mark.parametrize("failing", ["app", "blueprint"])
def test_a_teardown_that_fails_hides_the_caller_from_no_other(app: Flask, failing: str) -> None:
    def fail(_error: object) -> None:
        raise LookupError

    inner = Blueprint("inner", __name__)
    inner.add_url_rule("/inner", "view", lambda: "x")
    (app if failing == "app" else inner).teardown_request(fail)
    app.register_blueprint(inner)
    with pytest.raises(LookupError):
        client_as(app, "bob").get("/inner")
    assert looked(app)[-1] == ("context", None)


def test_what_a_teardown_fetched_asks_for_the_caller_in_other_threads(app: Flask) -> None:
    m9m, found = app.extensions["m9m"], []

    @app.teardown_appcontext
    def count_elsewhere(_error: object) -> None:
        with ThreadPoolExecutor(1) as thread:
            found.append(len(thread.submit(m9m.credentials.list).result()))

    client_as(app, "ann").get("/mine")
    client_as(app, "bob").get("/mine")
    assert found == [1, 0]


def test_an_event_of_a_teardown_names_the_requests_caller(caplog: pytest.LogCaptureFixture) -> None:
    app = Flask("app")
    app.testing = True
    m9m = M9M(app, settings=make_settings())
    app.add_url_rule("/mine", "mine", require_auth(lambda: "x"))

    def record(*_: object, **__: object) -> None:
        m9m.audit.record("app.closed")

    with caplog.at_level("INFO"), appcontext_tearing_down.connected_to(record, app):
        client_as(app, "ann").get("/mine")
        with app.app_context():
            pass
    lines = [line for line in caplog.messages if "app.closed" in line]
    assert [("ann" in line, "mine" in line) for line in lines] == [(True, True), (False, False)]
