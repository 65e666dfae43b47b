"""An app with every kind of refusal, over real HTTP, and what its trail says of each request."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any, NamedTuple

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from flask_m9m import M9M, public, rate_limit, require_auth, require_signed_url
from flask_m9m.audit import Recorded
from flask_m9m.testing import Clock, make_settings

from .conftest import new_key

PASSWORD = "correct horse"
ALLOWED, EVIL = "https://app.example.com", "https://evil.example"
SECURITY: dict[str, Any] = {
    "basic_auth": {"enabled": True},
    "cors": {"allowed_origins": [ALLOWED]},
    "jwt": {"cookie": {"enabled": True}},
    "revocation": {"max_staleness": "30s"},
}


class Answer(NamedTuple):
    """What came back, and the rows that the trail got meanwhile, the oldest first."""

    status: int
    request_id: str
    body: Any
    rows: list[Recorded]


class Served:
    """An app that answers on a port.

    Args:
        app: the app.
        m9m: its extension.
        port: where it answers.
    """

    def __init__(self, app: Flask, m9m: M9M, port: int) -> None:
        self.app, self.m9m, self._port = app, m9m, port

    def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> Answer:
        """Send a request, without looking at the trail."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        content = None if body is None else json.dumps(body)
        sent = {**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
        connection.request(method, path, content, sent)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        found = json.loads(text) if text.startswith(b"{") else text
        return Answer(answer.status, answer.headers["X-Request-ID"], found, [])

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> Answer:
        """Send a request, and return what the trail says of it."""
        before = self.rows()
        answer = self.send(method, path, headers, body)
        return answer._replace(rows=self.rows()[len(before) :])

    def rows(self) -> list[Recorded]:
        with self.app.app_context():
            self.m9m.audit.flush()
            return list(reversed(self.m9m.audit.query(limit=10_000)))


def make_app(url: str, clock: Clock, **sections: Any) -> tuple[Flask, M9M]:
    app = Flask("app")
    settings = {
        "database": {"url": url},
        "api": {"enabled": True},
        "audit": {"sinks": ["database"]},
        "credentials": {"encryption_key": new_key()},
        **sections,
        "security": {**SECURITY, **sections.get("security", {})},
    }
    m9m = M9M(app, settings=make_settings(settings), clock=clock)
    app.extensions["m9m"].database.upgrade()

    @app.route("/x", methods=["GET", "POST"])
    @require_auth
    def view() -> str:
        return "x"

    @app.get("/write")
    @require_auth(scopes="items:write")
    def write() -> str:
        return "written"

    @app.get("/fresh")
    @require_auth(fresh=True)
    def fresh() -> str:
        return "fresh"

    @app.get("/once")
    @public
    @rate_limit("1/hour", burst=1)
    def once() -> str:
        return "once"

    @app.get("/signed")
    @require_signed_url
    def signed() -> str:
        return "signed"

    @app.get("/open")
    @public
    def anyone() -> str:
        return "anyone"

    return app, m9m


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@contextmanager
def serving(app: Flask, m9m: M9M) -> Iterator[Served]:
    """Serve an app from threads of this process."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Served(app, m9m, server.port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.extensions["m9m"].trail.flush()
        app.extensions["m9m"].database.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"}
