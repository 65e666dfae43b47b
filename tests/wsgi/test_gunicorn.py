"""The middleware under a real server: request lines as they come, streams, broken bodies."""

from __future__ import annotations

import secrets
import socket
import textwrap
from collections.abc import Iterator

import pytest

from tests.gunicorn import gunicorn

APP = """
    from flask_m9m import M9MMiddleware

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        if path == "/public/write":
            write(b"written, ")
        if path == "/public/broken":
            return broken()
        return (part for part in (b"path ", path.encode("latin-1")))

    def broken():
        yield b"first"
        raise ZeroDivisionError

    application = M9MMiddleware(app, settings={"security": {"default_access": "authenticated"}},
                                policies=[{"prefix": "/public", "access": "public"}])
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of two workers, whose parent has loaded the app."""
    folder = tmp_path_factory.mktemp("gunicorn")
    (folder / "app.py").write_text(textwrap.dedent(APP))
    environ = {
        "M9M_PERFORMANCE_RATE_LIMIT_PATH": str(folder / "limits"),
        "M9M_JWT_SECRET": secrets.token_urlsafe(48),
    }
    options = ["--preload", "--workers", "2"]
    with gunicorn(folder, "app:application", *options, environ=environ) as found:
        yield found


def ask(port: int, line: str, *fields: str) -> tuple[int, str, bytes]:
    """Send a request as it is written; return status, head and body."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        lines = [f"{line} HTTP/1.1", "Host: localhost", "Connection: close", *fields, "", ""]
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), head.decode("latin-1"), body


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /public", 200),
        ("GET /public/x?y=/../z", 200),
        ("HEAD /public", 200),
        ("GET /me", 401),
        ("FOO /me", 401),
        ("GET /me?x=/public", 401),
        ("GET http://localhost/me", 401),
        ("GET http://localhost//me", 400),
        ("GET //me", 400),
        ("GET //public/../me", 400),
        ("GET /public/../me", 400),
        ("GET /public/%2e%2e/me", 400),
        ("GET /public%2f%2E.%2fme", 400),
        ("GET /public/..;/me", 400),
        ("GET /public%5c..%5cme", 400),
        ("GET /public/%00", 400),
        ("GET /public%0a", 400),
        ("GET /%ffme", 400),
        ("GET /%c0%ae%c0%ae/me", 400),
        ("OPTIONS *", 400),
    ],
)
def test_a_path_is_what_the_app_gets_or_none(port: int, line: str, status: int) -> None:
    found, head, _ = ask(port, line)
    assert found == status
    assert head.count("X-Frame-Options: DENY") == 1


def test_a_request_cannot_move_the_app(port: int) -> None:
    assert ask(port, "GET /public/me", "SCRIPT_NAME: /public")[0] == 400
    assert ask(port, "GET /me", "PATH_INFO: /public", "M9M.Identity: ann")[0] in (400, 401)


def test_bodies_are_sent_in_parts_and_a_broken_one_is_seen_to_be(port: int) -> None:
    assert ask(port, "GET /public/write")[2].endswith(b"\r\n0\r\n\r\n")
    status, head, body = ask(port, "GET /public/broken")
    assert (status, b"first" in body) == (200, True)
    assert not body.endswith(b"0\r\n\r\n")
    assert head.count("X-Frame-Options: DENY") == 1
