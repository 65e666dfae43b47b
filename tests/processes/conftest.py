from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_m9m.settings import settings_of
from flask_m9m.storage import Database

ROOT = Path(__file__).parents[2]
WORKERS, THREADS = 4, 2


@pytest.fixture
def port(database_url: str, tmp_path: Path) -> Iterator[int]:
    """The port of four workers over one database, of each kind in turn."""
    database = Database(settings_of({"database": {"url": database_url}}).database, str(tmp_path))
    database.upgrade()
    database.close()
    config = tmp_path / "gunicorn.conf.py"
    config.write_text("control_socket_disable = True\n")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found: int = listening.getsockname()[1]
        process = _start(listening, config, database_url)
    try:
        yield found
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()


def _start(listening: socket.socket, config: Path, url: str) -> subprocess.Popen[bytes]:
    """Start gunicorn on a socket that listens already: connections wait until it takes them."""
    command = [sys.executable, "-m", "gunicorn", "--config", str(config)]
    command += ["-w", str(WORKERS), "--threads", str(THREADS), "--keep-alive", "10"]
    command += ["--bind", f"fd://{listening.fileno()}", "tests.processes.app:app"]
    with open(config.with_name("gunicorn.log"), "wb") as log:
        return subprocess.Popen(
            command,
            cwd=config.parent,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "M9M_DATABASE_URL": url,
                "M9M_PERFORMANCE_RATE_LIMIT_PATH": str(config.parent / "limits"),
                "M9M_SECURITY_LOCKOUT_ENABLED": "false",  # the tests ask with bad keys all the time
                "M9M_JWT_SECRET": secrets.token_urlsafe(48),
            },
            pass_fds=[listening.fileno()],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
