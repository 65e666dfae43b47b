"""How long another client waits while a server is under siege.

`flask m9m serve` with two workers of four threads serves one view. A witness, in a process of its
own, asks on a new connection every 20 ms, and each attack lasts a few seconds: bodies of one-octet
chunks, bodies and heads that never end, sockets that say nothing, the most expensive `Accept`, and
all of it at once. The limit is half a second for every answer; the command exits 1 beyond it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import selectors
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import NamedTuple

from tests.gunicorn import ROOT
from tests.wsgi.server.certificates import make_certificate

LIMIT = 0.5  # seconds
PAUSE = 0.02
FIELDS = b"Host: localhost\r\n"
POST = b"POST / HTTP/1.1\r\n" + FIELDS
UPLOAD = POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000
CHUNKS = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 170_000
ACCEPT = b"GET / HTTP/1.1\r\n" + FIELDS + b"Accept: application/problem+json" + b" " * 15_000
WORST_ACCEPT = ACCEPT + b"x\r\nConnection: close\r\n\r\n"
APP = """\
from flask import Flask, request
from flask_m9m import M9M
app = Flask(__name__)
M9M(app)
@app.route("/", methods=["GET", "POST"])
def index(): return {"octets": len(request.get_data())}
"""


class Server(NamedTuple):
    """A server under siege.

    Attributes:
        port: where it listens on loopback.
        certificate: the file of its certificate; `None` without TLS.
    """

    port: int
    certificate: str | None

    def dial(self) -> socket.socket:
        """Open a connection, with TLS if the server has it."""
        plain = socket.create_connection(("127.0.0.1", self.port), 5)
        if self.certificate is None:
            return plain
        context = ssl.create_default_context(cafile=self.certificate)
        return context.wrap_socket(plain, server_hostname="localhost")

    def connection(self) -> HTTPConnection:
        """Return a client's connection."""
        if self.certificate is None:
            return HTTPConnection("127.0.0.1", self.port, timeout=10)
        context = ssl.create_default_context(cafile=self.certificate)
        return HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)


class Attack(NamedTuple):
    """Clients that all send the same.

    Attributes:
        clients: how many connections there are at once.
        sent: what each sends.
        stays: whether it then waits until the server closes, or begins again at once.
    """

    clients: int
    sent: bytes
    stays: bool = True


ATTACKS = {
    "nothing": [],
    "4 x 1 MB of one-octet chunks": [Attack(4, CHUNKS, stays=False)],
    "2,000 incomplete bodies": [Attack(2_000, UPLOAD)],
    "2,000 incomplete heads": [Attack(2_000, POST + b"X: ")],
    "2,000 idle sockets": [Attack(2_000, b"")],
    "24 requests with the worst Accept": [Attack(24, WORST_ACCEPT, stays=False)],
}
ATTACKS["all of it"] = [attack for attacks in ATTACKS.values() for attack in attacks]


class Witnessed(NamedTuple):
    """What another client saw.

    Attributes:
        waits: seconds until each answer.
        failures: the requests without an answer of 200.
    """

    waits: list[float]
    failures: list[str]


def witness(server: Server, seconds: float, pipe: Pipe) -> None:
    """Ask as another client, each time on a new connection, and send what was seen."""
    waits, failures = [], []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begun = time.monotonic()
        connection = server.connection()
        try:
            connection.request("POST", "/", b"hello")
            answer = connection.getresponse()
            if answer.status != 200 or b"5" not in answer.read():
                failures.append(str(answer.status))
        except (OSError, HTTPException) as error:
            failures.append(repr(error))
        finally:
            connection.close()
        waits.append(time.monotonic() - begun)
        time.sleep(PAUSE)
    pipe.send(Witnessed(waits, failures))


def stay(server: Server, attack: Attack, stop: threading.Event) -> None:
    """Keep connections open that have sent their part, and replace those that are closed."""
    selector = selectors.DefaultSelector()
    try:
        while not stop.is_set():
            missing = attack.clients - len(selector.get_map())
            for _ in range(min(missing, 50)):
                with suppress(OSError):
                    client = server.dial()
                    selector.register(client, selectors.EVENT_READ)
                    client.sendall(attack.sent)
            for key, _ in selector.select(0.05):
                selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
    finally:
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        selector.close()


def repeat(server: Server, attack: Attack, stop: threading.Event) -> None:
    """Send a request, read what comes, and begin again."""
    while not stop.is_set():
        with suppress(OSError), server.dial() as client:
            client.sendall(attack.sent)
            while client.recv(65_536):
                pass


def besiege(server: Server, attacks: Sequence[Attack], seconds: float) -> Witnessed:
    """Attack a server, and return what another client saw meanwhile."""
    stop = threading.Event()
    threads = []
    for attack in attacks:
        run: Callable[[Server, Attack, threading.Event], None] = stay if attack.stays else repeat
        count = 1 if attack.stays else attack.clients
        threads += [threading.Thread(target=run, args=(server, attack, stop)) for _ in range(count)]
    ours, theirs = multiprocessing.Pipe()
    for thread in threads:
        thread.start()
    try:
        arguments = (server, seconds, theirs)
        process = multiprocessing.get_context("spawn").Process(target=witness, args=arguments)
        process.start()
        witnessed: Witnessed = ours.recv()
        process.join()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return witnessed


@contextmanager
def served(directory: Path, *, tls: bool = False) -> Iterator[Server]:
    """Serve the app until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings: dict[str, object] = {"port": port}
    certificate = None
    if tls:
        pair = make_certificate(directory)
        certificate = str(pair.certificate)
        settings["tls"] = {"enabled": True, "cert_file": certificate, "key_file": str(pair.key)}
    off = {"jwt": {"enabled": False}}
    (directory / "config.yaml").write_text(json.dumps({"server": settings, "security": off}))
    (directory / "app.py").write_text(APP)
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flask", "m9m", "serve"],
            cwd=directory,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    server = Server(port, certificate)
    try:
        await_start(server, process)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()


def await_start(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers."""
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError):
            server.dial().close()
            return
        time.sleep(0.05)
    raise RuntimeError("the server does not start")


def spin(seconds: float) -> None:
    """Keep a processor busy."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(10_000))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print how long another client waited under each attack."""
    parser = argparse.ArgumentParser(prog="bench siege", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each attack")
    parser.add_argument("--tls", action="store_true", help="serve HTTPS")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    total = (options.seconds + 5) * len(ATTACKS)
    spinning = [
        multiprocessing.get_context("spawn").Process(target=spin, args=(total,), daemon=True)
        for _ in range(options.busy)
    ]
    for process in spinning:
        process.start()
    worst, failed = 0.0, 0
    try:
        with tempfile.TemporaryDirectory() as made, served(Path(made), tls=options.tls) as server:
            print(f"{'attack':34}{'answers':>8}{'failed':>8}{'median':>10}{'longest':>10}")
            for name, attacks in ATTACKS.items():
                waits, failures = besiege(server, attacks, options.seconds)
                worst, failed = max(worst, *waits), failed + len(failures)
                median, longest = statistics.median(waits) * 1_000, max(waits) * 1_000
                answers = len(waits) - len(failures)
                figures = f"{answers:8}{len(failures):8}{median:7.1f} ms{longest:7.0f} ms"
                print(f"{name:34}{figures}", *sorted(set(failures))[:2], flush=True)
    finally:
        for process in spinning:
            process.terminate()
    return int(worst > LIMIT or failed > 0)


if __name__ == "__main__":
    sys.exit(main())
