"""Request ids: one name for a request, in its answer, in its errors and in the logs."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any

import pytest
from flask import Flask, Response
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_m9m import M9M, get_request_id, require_auth
from flask_m9m.testing import make_settings
from tests.bodies import error_of
from tests.conftest import MakeApp

BEHIND_A_PROXY = {"server": {"trusted_proxies": ["127.0.0.1"]}}
FIELD = "X-Request-ID"
OURS = re.compile(r"[0-9a-f]{32}")
LINES = logging.getLogger("flask_m9m")


def ids_app(app: Flask) -> Flask:
    @app.get("/id")
    def view() -> dict[str, Any]:
        from flask import request

        return {"id": get_request_id(), "environ": request.environ["m9m.request_id"]}

    @app.get("/own")
    def own() -> Response:
        return Response("x", headers=[(FIELD, "upstream-1"), (FIELD, "upstream-2")])

    @app.get("/closed")
    @require_auth
    def closed() -> str:
        return "closed"

    @app.get("/broken")
    def broken() -> str:
        raise ZeroDivisionError

    @app.get("/log")
    def log() -> str:
        LINES.warning("a line")
        return "written"

    return app


def id_of(answer: Any) -> str:
    (found,) = answer.headers.getlist(FIELD)
    assert isinstance(found, str)
    return found


def test_every_answer_has_one_of_its_own(make_app: MakeApp) -> None:
    client = ids_app(make_app(TESTING=False)).test_client()
    paths = ["/id", "/own", "/closed", "/broken", "/nowhere", "/id", "/id"]
    answers = [client.get(path) for path in paths]
    answers += [client.post("/id"), client.head("/id"), client.options("/id")]
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    answers.append(client.options("/id", headers=preflight))
    ids = [id_of(answer) for answer in answers]
    assert len(set(ids)) == len(answers)
    assert all(OURS.fullmatch(found) for found in ids)
    assert answers[0].json == {"id": ids[0], "environ": ids[0]}
    assert error_of(answers[2])["code"] == "AUTH_REQUIRED"


def test_problems_have_it_as_an_extension_member(app: Flask) -> None:
    client = ids_app(app).test_client()
    answer = client.get("/closed", headers={"Accept": "application/problem+json"})
    assert answer.mimetype == "application/problem+json"
    assert error_of(answer)["type"] == "about:blank"


def test_nobody_but_a_trusted_proxy_brings_one(app: Flask, make_app: MakeApp) -> None:
    assert OURS.fullmatch(id_of(ids_app(app).test_client().get("/id", headers={FIELD: "mine"})))
    client = ids_app(make_app(BEHIND_A_PROXY)).test_client()
    answer = client.get("/id", headers={FIELD: "mine"})
    assert (id_of(answer), answer.json["id"]) == ("mine", "mine")
    stranger = {"REMOTE_ADDR": "203.0.113.9"}
    answer = client.get("/id", headers={FIELD: "mine"}, environ_overrides=stranger)
    assert OURS.fullmatch(id_of(answer))


@pytest.mark.parametrize(
    "given",
    [
        *("", " ", "a b", "a,b", 'a"b', "a'b", "a\\b", "<b>", "a\x1b[31mb", "a\x7f", "ä", "\u0661"),
        *("a\nb", "a\r\nSet-Cookie: x=1", "id\n", "a\0", "a" * 129, "a" * 100_000, "%0d%0a", "a/b"),
    ],
)
def test_what_is_no_id_is_replaced(make_app: MakeApp, given: str) -> None:
    client = ids_app(make_app(BEHIND_A_PROXY)).test_client()
    answer = client.get("/closed", environ_overrides={"HTTP_X_REQUEST_ID": given})
    assert OURS.fullmatch(id_of(answer))
    assert error_of(answer)["code"] == "AUTH_REQUIRED"


@pytest.mark.parametrize("given", ["a", "a" * 128, "1-58337262-36d228ad5d99923122bbe354", "A.b_c-"])
def test_what_proxies_write_is_kept(make_app: MakeApp, given: str) -> None:
    client = ids_app(make_app(BEHIND_A_PROXY)).test_client()
    assert id_of(client.get("/id", headers={FIELD: given})) == given


def test_a_mounted_app_keeps_the_id_of_the_app_around_it(make_app: MakeApp) -> None:
    outer, inner = ids_app(make_app(TESTING=False)), ids_app(make_app(TESTING=False))
    outer.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        outer.wsgi_app, {"/in": inner.wsgi_app}
    )

    @outer.get("/through")
    def through() -> Response:
        from flask import request

        environ = {**request.environ, "PATH_INFO": "/closed"}
        return Response.from_app(inner.wsgi_app, environ)

    client = outer.test_client()
    for path in ("/in/closed", "/through"):
        answer = client.get(path)
        assert answer.status_code == 401
        error_of(answer)


def test_without_a_request_there_is_none() -> None:
    assert get_request_id() is None


def test_an_app_without_an_m9m_has_none_of_its_own() -> None:
    app = Flask("bare")
    app.add_url_rule("/id", "id", lambda: {"id": get_request_id()})
    assert app.test_client().get("/id").json == {"id": None}


def test_lines_of_our_logger_name_their_request(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    client = ids_app(app).test_client()
    LINES.warning("outside")
    answers = [client.get("/log") for _ in range(2)]
    logging.getLogger("app.own").warning("another's")
    records = [one for one in caplog.records if one.message in ("outside", "a line")]
    assert [one.request_id for one in records] == [  # type: ignore[attr-defined]
        "-",
        *map(id_of, answers),
    ]
    (others,) = (one for one in caplog.records if one.name == "app.own")
    assert not hasattr(others, "request_id")


def test_a_line_written_while_the_guard_is_made_waits_for_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Flask("app")
    M9M(app, settings=make_settings({"security": {"jwt": {"secret": None}}}))
    done = []

    def first() -> None:
        with app.test_request_context("/"):
            done.append(get_request_id())

    thread = threading.Thread(target=first, daemon=True)
    thread.start()
    thread.join(10.0)
    assert done
    assert any("JWT is switched off" in one.message for one in caplog.records)


def test_the_logger_is_marked_once_whatever_is_made() -> None:
    before = list(LINES.filters)
    for _ in range(3):
        M9M(Flask("app"), settings=make_settings())
    assert LINES.filters == before
    assert logging.getLogger().filters == []
