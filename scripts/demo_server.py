"""The example as the demo runs it: a process of its own, under settings of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "workflows_api" / "app.py"


def make_user(environment: Mapping[str, str], password: str) -> None:
    """Make ann on the command line; the password goes in by standard input."""
    command = [sys.executable, "-m", "flask", "--app", str(EXAMPLE), "m9m", "user", "create", "ann"]
    scopes = ["--scope", "workflow:read workflow:run"]
    subprocess.run(
        [*command, *scopes], env=dict(environment), input=f"{password}\n".encode(), check=True
    )


def run_python(code: str, environment: Mapping[str, str], *arguments: str) -> str:
    """Run code beside the example's module, and return what it prints."""
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(
        command, cwd=EXAMPLE.parent, env=dict(environment), stdout=subprocess.PIPE, check=True
    )
    return result.stdout.decode().strip()


@contextmanager
def serving(environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """Run the example, and give the port on which it answers.

    Args:
        environment: its settings.
        log: the file to which it writes what it logs.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [sys.executable, "-m", "flask", "--app", str(EXAMPLE), "run", "--port", str(port)]
    with log.open("ab") as written:
        server = subprocess.Popen(
            command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=written
        )
    try:
        wait_for(port, server)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the example did not start")
