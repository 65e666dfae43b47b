"""Clients that use a server up, beside others."""

from __future__ import annotations

import re
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from benchmarks.siege import CHUNKS, UPLOAD, Attack, besiege
from benchmarks.siege import Server as Besieged

from .certificates import make_certificate
from .conftest import Server, read_all

FIELDS = b"Host: localhost\r\n"
POST = b"POST / HTTP/1.1\r\n" + FIELDS
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HEAD = POST + b"X-Slow: "
ONE = {"workers": 1}
SECONDS = 3


def length(octets: int, path: bytes = b"/") -> bytes:
    return b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (path, FIELDS, octets)


def readable(client: socket.socket) -> bool:
    return bool(select.select([client], [], [], 0)[0])


@contextmanager
def clients(server: Server, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Keep connections open that have sent something."""
    with ExitStack() as stack:
        dialled = []
        for _ in range(count):
            dialled.append(stack.enter_context(server.dial()))
            dialled[-1].sendall(sent)
        yield dialled


def ended(sockets: list[socket.socket]) -> list[bytes]:
    """Return what came on the connections that the server has closed by now."""
    answers = []
    for client in sockets:
        client.settimeout(0.05)
        with closing(client):
            try:
                answers.append(read_all(client))
            except TimeoutError:
                continue
    return answers


@pytest.mark.parametrize(
    "attack",
    [Attack(4, CHUNKS, stays=False), Attack(600, UPLOAD), Attack(600, HEAD), Attack(600, b"")],
    ids=["one-octet chunks", "incomplete bodies", "incomplete heads", "idle"],
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_another_client_is_answered_during_a_siege(
    server: Server, tmp_path: Path, attack: Attack, tls: bool
) -> None:
    pair = make_certificate(tmp_path) if tls else None
    server.configure(pair, server={**ONE, "limits": {"max_connections": 100}})
    server.start()
    if tls:
        attack = attack._replace(clients=min(attack.clients, 150))
    certificate = str(pair.certificate) if pair else None
    witnessed = besiege(Besieged(server.port, certificate), [attack], SECONDS)
    assert not witnessed.failures
    assert sorted(witnessed.waits)[len(witnessed.waits) * 9 // 10] < 1  # on a busy machine too


@pytest.mark.parametrize("sent", [length(1_000), HEAD, b""], ids=["body", "head", "idle"])
def test_the_connection_without_progress_for_longest_makes_room(
    server: Server, sent: bytes
) -> None:
    server.configure(server={**ONE, "limits": {"max_connections": 20}})
    server.start()
    with clients(server, 1, sent) as first:
        time.sleep(0.3)
        with clients(server, 18, length(1_000)) as others:
            assert server.get("/scheme")[0] == 200
            (answer,) = ended(first)
            assert answer.startswith(b"HTTP/1.1 503 " if sent else b"")
            assert not ended(others)
    assert "server.limits.max_connections (20) is used up" in server.said()


def test_a_body_that_keeps_arriving_stays_where_room_is_needed(server: Server) -> None:
    server.configure(server={**ONE, "limits": {"max_connections": 20}})
    server.start()
    with server.dial() as upload, ExitStack() as stack:
        upload.sendall(length(60_000))
        for _ in range(60):
            upload.sendall(b"x" * 1_000)
            stack.enter_context(server.dial()).sendall(length(1_000))
            time.sleep(0.02)
        assert upload.recv(100).startswith(b"HTTP/1.1 200 ")


def test_an_address_has_no_more_connections_than_its_limit(server: Server) -> None:
    server.configure(server={**ONE, "limits": {"max_connections_per_address": 10}})
    server.start()
    with clients(server, 30, length(1_000)) as dialled:
        assert server.get("/scheme")[0] == 200
        refused = ended(dialled)
        assert len(refused) >= 20
        assert all(answer.startswith(b"HTTP/1.1 503 ") for answer in refused)
    assert "max_connections_per_address (10) is used up" in server.said()


def test_a_trusted_proxy_may_have_all_connections(server: Server) -> None:
    limits = {"max_connections_per_address": 10}
    server.configure(server={**ONE, "limits": limits, "trusted_proxies": ["127.0.0.1"]})
    server.start()
    with clients(server, 30, length(1_000)) as dialled:
        assert server.get("/scheme")[0] == 200
        assert not ended(dialled)


@pytest.mark.parametrize("opening", [length(1_000_000), CHUNKED + b"f4240\r\n"])
def test_a_body_below_the_least_rate_ends(server: Server, opening: bytes) -> None:
    timeouts = {"body": "1s", "request": "60s"}
    server.configure(server={"timeouts": timeouts})
    server.start()
    with server.dial() as slow, server.dial() as fast:
        slow.sendall(opening)
        fast.sendall(opening)
        for _ in range(40):
            fast.sendall(b"x" * 2_500)
            slow.sendall(b"x")
            time.sleep(0.05)
            if readable(slow):
                break
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
        assert not readable(fast)


def test_bodies_hold_no_more_than_their_limit_and_small_ones_go_through(server: Server) -> None:
    limits = {"max_body_size": 1_000_000, "max_buffered_size": 2_000_000}
    server.configure(server={**ONE, "limits": limits})
    server.start()
    with clients(server, 6, length(900_001) + b"x" * 900_000) as dialled:
        with closing(server.connection()) as small:
            small.request("POST", "/", b"x" * 150_000)
            assert small.getresponse().status == 200
        refused = ended(dialled)
        assert len(refused) >= 4
        assert all(b"Retry-After: 1\r\n" in answer for answer in refused)
    assert "max_buffered_size (2000000) is used up" in server.said()


def test_space_for_bodies_is_given_back(server: Server) -> None:
    limits = {"max_body_size": 1_000_000, "max_buffered_size": 1_000_000}
    server.configure(server={**ONE, "limits": limits})
    server.start()
    for _ in range(3):
        with server.dial() as broken:
            broken.sendall(length(900_000) + b"x" * 800_000)
            broken.shutdown(socket.SHUT_WR)
            read_all(broken)
        with closing(server.connection()) as connection:
            for path in ("/", "/unread"):
                connection.request("POST", path, b"x" * 900_000)
                answer = connection.getresponse()
                assert answer.status == 200
                answer.read()


@pytest.mark.parametrize(
    ("proxies", "forwarded", "allowed"),
    [
        ([], b"", ["192.0.2.0/24"]),
        (["127.0.0.1"], b"X-Forwarded-For: 198.51.100.1\r\n", ["192.0.2.0/24", "127.0.0.1"]),
        ([], b"X-Forwarded-For: 192.0.2.1\r\n", ["192.0.2.0/24"]),
    ],
    ids=["the peer", "behind a proxy", "forged"],
)
@pytest.mark.parametrize("body", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_a_refused_network_is_answered_before_its_body_is_received(
    server: Server, proxies: list[str], forwarded: bytes, allowed: list[str], body: bytes
) -> None:
    server.configure(server={"trusted_proxies": proxies, "allowed_networks": allowed})
    server.start()
    with server.dial() as client:
        client.sendall(POST + forwarded + b"Expect: 100-continue\r\n" + body + b"\r\n\r\n")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"ADDRESS_NOT_ALLOWED" in answer
    assert b"100 Continue" not in answer


def test_an_allowed_client_behind_a_proxy_sends_its_body(server: Server) -> None:
    networks = {"trusted_proxies": ["127.0.0.1"], "allowed_networks": ["192.0.2.0/24"]}
    server.configure(server=networks)
    server.start()
    with closing(server.connection()) as connection:
        connection.request("POST", "/", b"abc", {"X-Forwarded-For": "192.0.2.1"})
        assert b'"octets":3,' in connection.getresponse().read()


def test_a_disk_that_is_full_is_said_and_not_the_clients_fault(server: Server) -> None:
    (server.directory / "app.py").write_text(
        "import flask_m9m.wsgi.server.buffered_body as bodies\n"
        "def full(self, data): raise OSError(28, 'No space left on device')\n"
        "bodies.BufferedBody.write = full\n"
        "from flask import Flask\nfrom flask_m9m import M9M\napp = Flask(__name__)\nM9M(app)\n"
        "@app.get('/scheme')\ndef scheme(): return ''\n"
    )
    server.configure()
    server.start()
    with server.dial() as client:
        client.sendall(length(3) + b"abc")
        assert read_all(client).startswith(b"HTTP/1.1 503 ")
    assert "a body cannot be stored: No space left on device" in server.said()


@pytest.mark.parametrize("command", [[], ["-H", "Expect:"]], ids=["asks first", "sends at once"])
def test_curl_reads_the_refusal_of_a_body_that_is_too_large(
    server: Server, tmp_path: Path, command: list[str]
) -> None:
    server.configure(server={"limits": {"max_body_size": 1_000_000}})
    server.start()
    (tmp_path / "large").write_bytes(b"x" * 20_000_000)
    for chunked in ([], ["-H", "Transfer-Encoding: chunked"]):
        result = subprocess.run(
            [
                *("curl", "-s", "-i", "--data-binary", "@large", *command, *chunked),
                f"http://127.0.0.1:{server.port}/",
            ],
            cwd=tmp_path,
            capture_output=True,
            timeout=30,
        )
        assert re.match(rb"(HTTP/1.1 100 Continue\r\n\r\n)?HTTP/1.1 413 ", result.stdout)
        assert not chunked or b"CONTENT_TOO_LARGE" in result.stdout


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_client_that_sends_on_after_a_refusal_reads_it(
    server: Server, tmp_path: Path, tls: bool
) -> None:
    pair = make_certificate(tmp_path) if tls else None
    server.configure(pair, server={"limits": {"max_body_size": 1_000_000}})
    server.start()
    client = Besieged(server.port, str(pair.certificate) if pair else None).dial()
    with closing(client):
        client.sendall(length(20_000_000))
        for _ in range(40):  # four seconds, longer than a silent client gets
            client.sendall(b"x" * 10_000)
            time.sleep(0.1)
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")
