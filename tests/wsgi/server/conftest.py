from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from .certificates import Pair

ROOT = Path(__file__).parents[3]
APP = """\
import os, time
from flask import Flask, request
from flask_m9m import M9M

app = Flask(__name__)
M9M(app)

@app.route("/", methods=["GET", "POST"])
def index(): return {"worker": os.getpid(), "octets": len(request.get_data())}

@app.post("/unread")
def unread(): return {"worker": os.getpid()}

@app.get("/scheme")
def scheme(): return {"scheme": request.environ["wsgi.url_scheme"]}

@app.get("/slow")
def slow():
    time.sleep(1)
    return {"worker": os.getpid()}
"""


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port: int = probe.getsockname()[1]
        return port


class Server:
    """An app that is served by processes of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.log = directory / "server.log"
        self.tls: Pair | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, tls: Pair | None = None, **settings: Any) -> None:
        """Write `app.py` and `config.yaml`, which JSON is as well."""
        self.tls = tls
        server = {"port": self.port, **settings.pop("server", {})}
        if tls is not None:
            files = {"cert_file": str(tls.certificate), "key_file": str(tls.key)}
            server["tls"] = {"enabled": True, **files, **server.get("tls", {})}
        settings.setdefault("security", {"jwt": {"enabled": False}})
        text = json.dumps({**settings, "server": server})
        (self.directory / "config.yaml").write_text(text)
        if not (self.directory / "app.py").exists():
            (self.directory / "app.py").write_text(APP)

    def start(self, *command: str, **environ: str) -> None:
        """Run `flask m9m serve`, or what is given, until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *(command or ("flask", "m9m", "serve"))],
                cwd=self.directory,
                env=self._environ(environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 30
        while time.monotonic() < until:
            assert self._process.poll() is None, self.said()
            with suppress(OSError):
                self.get("/scheme")
                return
            time.sleep(0.05)
        raise TimeoutError(self.said())

    @property
    def pid(self) -> int:
        """The id of the process that was started."""
        assert self._process is not None
        return self._process.pid

    def run(self, *command: str, **environ: str) -> None:
        """Run a command where the app is."""
        subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.directory,
            env=self._environ(environ),
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def refuse(self, *command: str, **environ: str) -> str:
        """Run it where it does not start; return what it says."""
        result = subprocess.run(
            [sys.executable, "-m", *(command or ("flask", "m9m", "serve"))],
            cwd=self.directory,
            env=self._environ(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 1, result.stderr
        assert "Listening" not in result.stderr
        return result.stderr

    def _environ(self, environ: dict[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**kept, "HOME": str(self.directory), "PYTHONPATH": str(ROOT), **environ}

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait_until_said(self, text: str, seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while text not in self.said():
            assert time.monotonic() < until, self.said()
            time.sleep(0.05)

    def connection(self, timeout: float = 10) -> HTTPConnection:
        if self.tls is None:
            return HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        context = ssl.create_default_context(cafile=str(self.tls.certificate))
        return HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=context)

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        with closing(self.connection()) as connection:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def dial(self, timeout: float = 10) -> socket.socket:
        """Open a bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that the tests of a module have in common."""
    made = Server(tmp_path_factory.mktemp("server"))
    try:
        yield made
    finally:
        made.stop()


def read_all(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)
