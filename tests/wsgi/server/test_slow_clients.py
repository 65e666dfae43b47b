"""Clients that send slowly, or nothing, beside others."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from .certificates import make_certificate
from .conftest import Server, read_all

SLOW = 200
TIMEOUTS = {"header": "3s", "request": "6s", "keep_alive": "3s", "write": "3s"}
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
BODY = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
CHUNKS = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n"
HANDSHAKE = b"\x16\x03\x01\x02\x00\x01"

Dribble = Callable[[socket.socket], None]


@contextmanager
def slow_clients(server: Server, opening: bytes, more: bytes) -> Iterator[list[socket.socket]]:
    """Keep many connections open; each gets a byte every half second, if there is one."""
    stop = threading.Event()
    with ExitStack() as stack:
        clients = [stack.enter_context(server.dial()) for _ in range(SLOW)]
        for client in clients:
            client.sendall(opening)

        def dribble() -> None:
            while more and not stop.wait(0.5):
                for client in clients:
                    with suppress(OSError):
                        client.send(more)

        thread = threading.Thread(target=dribble)
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        yield clients


def longest_wait(server: Server, times: int = 20) -> float:
    """Ask as others do meanwhile; return how long the slowest answer took."""
    waits = []
    for _ in range(times):
        begun = time.monotonic()
        status, _body = server.get("/scheme")
        assert status == 200
        waits.append(time.monotonic() - begun)
        time.sleep(0.05)
    return max(waits)


def all_ended(clients: list[socket.socket], seconds: float) -> bool:
    """Tell whether the server lets go of all of them in time."""
    until = time.monotonic() + seconds
    waiting = set(clients)
    while waiting and time.monotonic() < until:
        for client in select.select(list(waiting), [], [], 0.2)[0]:
            try:
                ended = not client.recv(65_536)
            except ConnectionError:
                ended = True
            if ended:
                waiting.discard(client)
    return not waiting


@pytest.mark.parametrize(
    ("opening", "more", "seconds"),
    [(b"", b"", 6), (HEAD, b"x", 6), (BODY, b"x", 9), (CHUNKS, b"x", 9)],
    ids=["silent", "in the head", "in the body", "in a chunk"],
)
def test_slow_clients_do_not_hold_the_others_up_and_are_dropped(
    server: Server, opening: bytes, more: bytes, seconds: float
) -> None:
    server.configure(server={"timeouts": TIMEOUTS})
    server.start()
    with slow_clients(server, opening, more) as clients:
        assert longest_wait(server) < 1
        assert all_ended(clients, seconds)
    assert server.get("/scheme")[0] == 200


@pytest.mark.parametrize("opening", [b"", HANDSHAKE], ids=["silent", "in the handshake"])
def test_slow_handshakes_do_not_hold_the_others_up(
    server: Server, tmp_path: Path, opening: bytes
) -> None:
    server.configure(make_certificate(tmp_path), server={"timeouts": TIMEOUTS})
    server.start()
    with slow_clients(server, opening, b"") as clients:
        assert longest_wait(server) < 1
        assert all_ended(clients, 6)


def test_a_slow_head_over_tls_is_dropped_too(server: Server, tmp_path: Path) -> None:
    server.configure(make_certificate(tmp_path), server={"timeouts": TIMEOUTS})
    server.start()
    assert server.tls is not None
    context = ssl.create_default_context(cafile=str(server.tls.certificate))
    with ExitStack() as stack:
        clients = []
        for _ in range(20):  # more than there are threads
            wrapped = context.wrap_socket(server.dial(), server_hostname="localhost")
            wrapped.sendall(HEAD)
            clients.append(stack.enter_context(closing(wrapped)))
        assert longest_wait(server) < 1
        assert all(read_all(one).startswith(b"HTTP/1.1 408 ") for one in clients)


def test_clients_that_say_nothing_make_room_for_others(server: Server) -> None:
    limits = {"max_connections": 50}
    server.configure(server={"limits": limits, "timeouts": {**TIMEOUTS, "header": "60s"}})
    server.start()
    with slow_clients(server, b"", b""):
        assert longest_wait(server) < 1


def test_a_slow_head_is_told_so(server: Server) -> None:
    server.configure(server={"timeouts": TIMEOUTS})
    server.start()
    with server.dial() as client:
        client.sendall(HEAD)
        assert read_all(client).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_clients_that_never_close_do_not_hold_the_others_up(server: Server) -> None:
    server.configure(server={"timeouts": TIMEOUTS})
    server.start()
    with slow_clients(server, b"GET /scheme HTTP/1.0\r\n\r\n", b"") as clients:
        assert longest_wait(server) < 1
        assert all_ended(clients, 6)


def test_a_client_that_takes_no_answer_is_dropped(server: Server) -> None:
    server.configure(server={"workers": 1, "threads": 1, "timeouts": TIMEOUTS})
    (server.directory / "app.py").write_text(
        "from flask import Flask\nfrom flask_m9m import M9M\napp = Flask(__name__)\nM9M(app)\n"
        "@app.get('/large')\ndef large(): return b'x' * 50_000_000\n"
        "@app.get('/scheme')\ndef scheme(): return 'small'\n"
    )
    server.start()
    with server.dial() as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.2)
        assert 1 < longest_wait(server, 1) < 6  # the one thread is its for so long
        assert server.get("/scheme") == (200, b"small")
    assert "Traceback" not in server.said()
