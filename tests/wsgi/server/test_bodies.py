"""Bodies of every size, as the app that is served gets them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from .certificates import make_certificate
from .conftest import Server, read_all

LIMIT = 2_000_000


@pytest.fixture(scope="module", params=["plain", "TLS"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    tls = make_certificate(server.directory) if request.param == "TLS" else None
    server.configure(tls, server={"limits": {"max_body_size": LIMIT}})
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1_000_000, LIMIT])
def test_a_body_arrives_whole(served: Server, size: int) -> None:
    sent = b"x" * size
    with closing(served.connection()) as connection:
        for body in (sent, iter([sent[: size // 3], sent[size // 3 :]]), sent):
            connection.request("POST", "/", body)  # in chunks, where it is an iterator
            answer = connection.getresponse()
            assert answer.status == 200
            assert b'"octets":%d,' % size in answer.read()


def test_a_connection_is_kept_where_a_view_reads_no_body(served: Server) -> None:
    with closing(served.connection()) as connection:
        for body in (b"x" * 1_000_000, iter([b"x" * 1_000_000]), b""):
            connection.request("POST", "/unread", body)
            answer = connection.getresponse()
            assert answer.read()
            assert answer.headers["Connection"] == "keep-alive"


def test_a_client_that_waits_for_leave_gets_it(served: Server) -> None:
    if served.tls is not None:
        pytest.skip("it is the same")
    with served.dial() as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert b'"octets":3,' in answer


def test_an_app_may_read_more_than_the_server_receives_for_it(server: Server) -> None:
    (server.directory / "app.py").write_text(
        "from flask import Flask, request\nfrom flask_m9m import M9M\napp = Flask(__name__)\n"
        "app.config['MAX_CONTENT_LENGTH'] = 5_000_000\nM9M(app)\n"
        "@app.post('/')\ndef index(): return str(len(request.get_data()))\n"
        "@app.get('/scheme')\ndef scheme(): return ''\n"
    )
    server.configure(server={"limits": {"max_body_size": 1_000}})
    server.start()
    for size, status in ((4_000_000, 200), (5_000_001, 413)):
        with closing(server.connection()) as connection:
            connection.request("POST", "/", b"x" * size)
            answer = connection.getresponse()
            assert answer.status == status
            assert status == 413 or answer.read() == b"4000000"
    with closing(server.connection()) as connection:  # never cut off without a word
        connection.request("POST", "/", iter([b"x" * 1_001]))
        assert connection.getresponse().status == 413


def test_a_body_that_breaks_off_is_no_request(served: Server, tmp_path: Path) -> None:
    if served.tls is not None:
        pytest.skip("it is the same")
    before = served.said().count("Traceback")
    with served.dial() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        client.shutdown(1)
        assert read_all(client) == b""
    assert served.said().count("Traceback") == before
