"""A real gunicorn for tests and benchmarks."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]


@contextmanager
def gunicorn(directory: Path, app: str, *options: str, environ: Mapping[str, str]) -> Iterator[int]:
    """Serve an app, and return the port; its processes have ended when this does.

    The socket listens before gunicorn starts, so that connections wait until it takes them.

    Args:
        directory: where it runs, and writes its log.
        app: what it serves, as its command line names it.
        options: more of its command line.
        environ: its environment, besides the path of the project.
    """
    config = directory / "gunicorn.conf.py"
    config.write_text("control_socket_disable = True\n")
    command = [sys.executable, "-m", "gunicorn", "--config", str(config), *options]
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        port: int = listening.getsockname()[1]
        with open(directory / "gunicorn.log", "ab") as log:
            process = subprocess.Popen(
                [*command, "--bind", f"fd://{listening.fileno()}", app],
                cwd=directory,
                env={"PYTHONPATH": str(ROOT), **environ},
                pass_fds=[listening.fileno()],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    try:
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()
