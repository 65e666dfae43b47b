"""WebSocket handshakes and replaced methods, under credentials that browsers send automatically."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Request, request
from flask.views import MethodView
from werkzeug.routing import Rule
from werkzeug.serving import make_server
from werkzeug.test import Client

from flask_m9m import M9M, M9MMiddleware, require_auth
from flask_m9m.testing import Clock, client_as, make_settings
from tests.databases import settle

ACCESS = "__Host-m9m-access"
OWN, ALLOWED, EVIL = "https://localhost", "https://app.example.com", "https://evil.example"
PASSWORD = "correct horse"
BASIC = "Basic " + base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = {
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "WebSocket",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}

Ask = Callable[..., int]
Browser = tuple[Flask, str]


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_m9m.auth.passwords.METHOD", "scrypt:1024:8:1")


def settings_of(url: str, **server: Any) -> dict[str, Any]:
    return {
        "server": server,
        "database": {"url": url},
        "security": {
            "jwt": {"secret": "x1" * 32, "cookie": {"enabled": True}},
            "basic_auth": {"enabled": True, "username": "ann", "password": PASSWORD},
            "cors": {"allowed_origins": [ALLOWED], "allow_credentials": True},
        },
    }


@pytest.fixture
def browser(sqlite_url: str, clock: Clock) -> Iterator[Browser]:
    """An app, and the session cookie of a browser."""
    app = Flask("app")
    m9m = M9M(app, settings=make_settings(settings_of(sqlite_url)), clock=clock)
    app.extensions["m9m"].database.upgrade()
    with app.app_context():
        pair = m9m.tokens.issue_pair("ann", scopes=(), roles=())
    yield app, f"{ACCESS}={pair.access_token}"
    settle()
    app.extensions["m9m"].database.close()


def status_of(app: Any, path: str, method: str = "GET", **fields: str) -> int:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    client = Client(app, use_cookies=False)  # it would replace the field
    return client.open(path, method=method, headers=headers, base_url=OWN).status_code


@pytest.mark.parametrize("scheme", ["cookie", "basic"])
def test_a_handshake_under_a_browsers_credential_needs_an_allowed_origin(
    browser: Browser, scheme: str
) -> None:
    """Cross-site WebSocket hijacking: CVE-2023-0957 of Gitpod, CVE-2024-26135 of MeshCentral."""
    app, cookie = browser
    opened = []
    view = require_auth(lambda: opened.append(1) or "open")
    app.add_url_rule("/socket", "socket", view)
    app.url_map.add(Rule("/ws", endpoint="socket", websocket=True, methods=["GET"]))
    sent = {"Cookie": cookie} if scheme == "cookie" else {"Authorization": BASIC}
    for path, fields in (("/ws", HANDSHAKE), ("/socket", {"Sec-WebSocket-Key": KEY})):
        if path == "/ws":
            assert status_of(app, path, **sent) == 400  # no handshake
        for origin in (EVIL, "null", OWN.replace("https", "http"), ""):
            assert status_of(app, path, **sent, **fields, Origin=origin) == 403
        assert not opened
        for allowed in ({"Origin": OWN}, {"Origin": ALLOWED}, {}):
            assert status_of(app, path, **sent, **fields, **allowed) == 200
            assert opened.pop()
        joined = {"Sec-Fetch-Site": "none, cross-site"}
        assert status_of(app, path, **sent, **fields, **joined) == 403
    # Anybody may read by GET: CORS keeps the answer from the page.
    assert status_of(app, "/socket", **sent, Origin=EVIL) == 200


def test_a_handshake_with_a_token_is_open_to_any_origin(browser: Browser) -> None:
    app, _ = browser
    app.add_url_rule("/socket", "socket", require_auth(lambda: "open"), websocket=True)
    answer = client_as(app, "ann").get("/socket", headers={**HANDSHAKE, "Origin": EVIL})
    assert answer.status_code == 200


def test_behind_a_proxy_the_origin_is_compared_with_the_host_that_it_forwards(
    sqlite_url: str, clock: Clock
) -> None:
    app = Flask("app")
    server = {"trusted_proxies": ["127.0.0.1"], "trust_forwarded_host": True}
    M9M(app, settings=make_settings(settings_of(sqlite_url, **server)), clock=clock)
    app.add_url_rule("/socket", "socket", require_auth(lambda: "open"), websocket=True)
    headers = {
        **HANDSHAKE,
        "Authorization": BASIC,
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Proto": "wss",
        "X-Forwarded-Host": "public.example",
    }
    client, peer = app.test_client(), {"REMOTE_ADDR": "127.0.0.1"}
    for origin, status in (("https://public.example", 200), ("http://public.example", 403)):
        sent = {**headers, "Origin": origin}
        assert client.get("/socket", headers=sent, environ_base=peer).status_code == status


def test_a_handshake_with_any_wsgi_app_needs_an_allowed_origin(sqlite_url: str) -> None:
    def inner(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"open"]

    app = M9MMiddleware(
        inner,
        settings=make_settings(settings_of(sqlite_url)),
        policies=[{"prefix": "/", "access": "authenticated"}],
    )
    sent = {**HANDSHAKE, "Authorization": BASIC}
    assert status_of(app, "/", **sent, Origin=EVIL) == 403
    assert status_of(app, "/", **sent, Origin=OWN) == 200


def test_a_real_handshake_is_refused_or_accepted_by_its_origin(browser: Browser) -> None:
    app, cookie = browser

    def accept() -> str:
        digest = hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        accepted = base64.b64encode(digest.digest()).decode()
        request.environ["werkzeug.socket"].sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accepted.encode() + b"\r\n\r\n\x81\x05hello"
        )
        return ""

    app.view_functions["ws"] = require_auth(accept)
    app.url_map.add(Rule("/ws", endpoint="ws", websocket=True, methods=["GET"]))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        own = f"http://127.0.0.1:{server.port}"
        for origin, status in ((EVIL, b"403"), (own, b"101"), (ALLOWED, b"101")):
            fields = {**HANDSHAKE, "Host": own[7:], "Cookie": cookie, "Origin": origin}
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
                connection.sendall(f"GET /ws HTTP/1.1\r\n{head}\r\n".encode())
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += connection.recv(65_536)
            assert answer.split()[1] == status
            assert (b"hello" in answer) <= (status == b"101")
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()


class Things(MethodView):
    """Deletes in whatever way it is asked to."""

    deleted = 0

    def get(self) -> str:
        return "read"

    def delete(self) -> str:
        type(self).deleted += 1
        return "deleted"


class MarkedThings(Things):
    deleted = 0

    @require_auth
    def delete(self) -> str:
        return super().delete()


def _replace_in_hook(app: Flask) -> None:
    @app.before_request
    def replace() -> None:
        if "_method" in request.args:
            request.method = request.args["_method"].upper()


def _replace_in_request_class(app: Flask) -> None:
    class Overriding(Request):
        def __init__(self, environ: Any, *args: Any, **options: Any) -> None:
            super().__init__(environ, *args, **options)
            if "_method" in self.args:
                self.method = self.args["_method"].upper()

    app.request_class = Overriding


def _replace_in_middleware(app: Flask) -> None:
    inner = app.wsgi_app

    def replacing(environ: Any, start_response: Any) -> Any:
        if environ.get("QUERY_STRING", "").startswith("_method="):
            environ["REQUEST_METHOD"] = environ["QUERY_STRING"].partition("=")[2].upper()
        return inner(environ, start_response)

    app.wsgi_app = replacing  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "replace", [_replace_in_hook, _replace_in_request_class, _replace_in_middleware]
)
@pytest.mark.parametrize("things", [Things, MarkedThings])
def test_forgery_goes_by_the_method_that_is_dispatched(
    browser: Browser, replace: Callable[[Flask], None], things: type[Things]
) -> None:
    """A page of another site sends `GET /things?_method=delete` by a link."""
    app, cookie = browser
    view: Any = things.as_view("things")
    app.add_url_rule("/things", view_func=require_auth(view))
    replace(app)
    things.deleted = 0
    for sent in ({"Cookie": cookie}, {"Authorization": BASIC}):
        for foreign in ({"Origin": EVIL}, {"Sec-Fetch-Site": "cross-site"}):
            assert status_of(app, "/things", **sent, **foreign) == 200
            assert status_of(app, "/things?_method=delete", **sent, **foreign) == 403
    assert status_of(app, "/things?_method=delete", Cookie=cookie) == 403  # no CSRF token
    assert things.deleted == 0
    assert status_of(app, "/things?_method=delete", Authorization=BASIC, Origin=OWN) == 200
    assert things.deleted == 1
    answer = client_as(app, "ann").get("/things?_method=delete", headers={"Origin": EVIL})
    assert answer.status_code == 200
