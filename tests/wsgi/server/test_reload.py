"""Certificates that are renewed, and workers that are replaced, while clients ask."""

from __future__ import annotations

import signal
import ssl
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography import x509

from .certificates import DAY, make_certificate
from .conftest import Server

SETTINGS: dict[str, Any] = {"server": {"timeouts": {"graceful": "10s"}}}


def served_certificate(server: Server) -> int:
    """Return the serial number of the certificate that a new connection sees."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(server.dial(), server_hostname="localhost") as wrapped:
        encoded = wrapped.getpeercert(binary_form=True)
    assert encoded is not None
    return x509.load_der_x509_certificate(encoded).serial_number


def serial_number(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


class Load:
    """Clients that ask all the time, over connections that they keep."""

    def __init__(self, server: Server, clients: int = 4) -> None:
        self.statuses: Counter[Any] = Counter()
        self.workers: set[int] = set()
        self._server = server
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = self._server.connection()
        if self._server.tls is not None:
            connection._context = context  # type: ignore[attr-defined]
        with closing(connection):
            while not self._stop.is_set():
                try:
                    connection.request("POST", "/", b"x" * 500)
                    answer = connection.getresponse()
                    body = answer.read()
                except Exception as error:
                    with self._lock:
                        self.statuses[repr(error)] += 1
                    connection.close()
                    continue
                with self._lock:
                    self.statuses[answer.status] += 1
                    if answer.status == 200:
                        self.workers.add(int(body.split(b'"worker":')[1].split(b"}")[0]))


def wait_for_both(server: Server) -> None:
    """Wait until both workers have answered."""
    workers: set[int] = set()
    until = time.monotonic() + 20
    while len(workers) < 2:
        assert time.monotonic() < until, server.said()
        with Load(server) as load:
            time.sleep(0.2)
        workers |= load.workers


def test_a_reload_drops_no_request_under_load(server: Server) -> None:
    server.configure(**SETTINGS)
    server.start()
    with Load(server) as load:
        time.sleep(1)
        before = set(load.workers)
        for _ in range(3):
            known, until = set(load.workers), time.monotonic() + 20
            server.signal(signal.SIGHUP)
            while load.workers <= known:
                assert time.monotonic() < until, server.said()
                time.sleep(0.1)
    assert set(load.statuses) == {200}, load.statuses
    assert load.statuses[200] > 100
    assert len(load.workers - before) >= 2


def test_a_reload_serves_the_new_certificate_and_drops_no_request(
    server: Server, tmp_path: Path
) -> None:
    pair = make_certificate(tmp_path)
    server.configure(pair, **SETTINGS)
    server.start()
    assert served_certificate(server) == serial_number(pair.certificate)
    with Load(server) as load:
        time.sleep(0.5)
        make_certificate(tmp_path, last=300 * DAY)
        server.signal(signal.SIGHUP)
        server.wait_until_said("The certificate is valid until")
        time.sleep(2)
    assert set(load.statuses) == {200}, load.statuses
    assert served_certificate(server) == serial_number(pair.certificate)


def test_a_broken_certificate_keeps_the_old_and_the_log_says_why(
    server: Server, tmp_path: Path
) -> None:
    pair = make_certificate(tmp_path)
    server.configure(pair, **SETTINGS)
    server.start()
    serial = serial_number(pair.certificate)
    kept = pair.certificate.read_bytes(), pair.key.read_bytes()
    pair.certificate.write_text("half a certifi")
    server.signal(signal.SIGHUP)
    server.wait_until_said("so the old one stays")
    assert "server.tls.cert_file" in server.said()
    time.sleep(2)
    assert {served_certificate(server) for _ in range(8)} == {serial}
    pair.certificate.write_bytes(kept[0])
    assert kept[1].splitlines()[1].decode() not in server.said()


def test_a_reload_brings_the_settings_of_the_app_and_keeps_those_of_the_server(
    server: Server,
) -> None:
    server.configure(**SETTINGS)
    server.start()
    server.configure(security={"jwt": {"enabled": False}, "errors": {"format": "problem"}})
    server.signal(signal.SIGHUP)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with closing(server.connection()) as connection:
            connection.request("POST", "/", headers={"Content-Length": "99999999"})
            if connection.getresponse().headers["Content-Type"] == "application/problem+json":
                return
        time.sleep(0.1)
    raise AssertionError(server.said())


def test_an_app_that_does_not_start_leaves_the_workers_and_the_log_says_why(
    server: Server,
) -> None:
    server.configure(server={"timeouts": {"graceful": "2s"}})
    server.start()
    wait_for_both(server)
    app = (server.directory / "app.py").read_text()
    workers = set()
    for broken in ("def (", "raise RuntimeError('not today')"):
        (server.directory / "app.py").write_text(broken)
        server.signal(signal.SIGHUP)
        said = "SyntaxError" if broken == "def (" else "not today"
        server.wait_until_said(said)
        with Load(server) as load:
            time.sleep(0.5)
        assert set(load.statuses) == {200}
        workers |= load.workers
    assert server.said().count("so the running workers stay") == 2
    (server.directory / "app.py").write_text(app)
    server.signal(signal.SIGHUP)
    until = time.monotonic() + 15
    while time.monotonic() < until:
        with Load(server) as load:
            time.sleep(0.5)
        assert set(load.statuses) == {200}
        if not workers & load.workers:
            return
    raise AssertionError(server.said())


def test_requests_under_way_are_answered_when_the_server_stops(server: Server) -> None:
    server.configure(**SETTINGS)
    server.start()
    answers: list[tuple[int, bytes]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(server.get("/slow"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.4)
    server.signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [200] * 4
