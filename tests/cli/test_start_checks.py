"""`flask m9m serve` on a PostgreSQL that is not ready: it stops, upgrades the tables, or waits."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.cli.conftest import SECRET, Folder

APP = """\
from flask import Flask
from flask_m9m import M9M, public
app = Flask(__name__)
M9M(app)
app.add_url_rule("/x", "x", public(lambda: "x"))
"""


@pytest.fixture
def project(tmp_path: Path, postgres_url: str) -> Folder:
    folder = Folder(tmp_path)
    folder.write("app.py", APP)
    folder.write(".env", f"M9M_JWT_SECRET={SECRET}\nM9M_DATABASE_URL={postgres_url}\n")
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def refused(folder: Folder, *arguments: str, **environ: str) -> str:
    result = folder.m9m("serve", *arguments, **environ)
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("mode", [[], ["--dev", "--no-reload"]])
def test_missing_tables_stop_the_start_with_the_command_that_makes_them(
    project: Folder, mode: list[str]
) -> None:
    assert "its tables do not exist: run flask m9m db upgrade" in refused(project, *mode)


def test_old_tables_stop_the_start(project: Folder, postgres_url: str) -> None:
    assert project.m9m("db", "upgrade").returncode == 0
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE m9m_alembic_version SET version_num = '0003'"))
    engine.dispose()
    assert "its schema has the old version 0003: run flask m9m db upgrade" in refused(project)


def test_a_missing_driver_stops_the_start(project: Folder, postgres_url: str) -> None:
    url = postgres_url.replace("+psycopg:", "+pg8000:")
    said = refused(project, M9M_DATABASE_URL=url)
    assert "needs the package pg8000: install it, or write postgresql://" in said


@pytest.mark.parametrize("gone", [False, True])
def test_the_settings_let_a_start_upgrade_and_a_server_come_later(
    project: Folder, gone: bool
) -> None:
    port = free_port()
    environ = {"M9M_DATABASE_UPGRADE": "true"}
    if gone:
        environ = {"M9M_DATABASE_URL": "postgresql://ann@127.0.0.1:1/app"}
    command = [sys.executable, "-m", "flask", "m9m", "serve", "--port", str(port), "--workers", "1"]
    with (project.path / "said").open("w") as said:
        process = subprocess.Popen(
            command, cwd=project.path, env=project.environ(**environ), stderr=said
        )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/x", timeout=10) as answer:
                    assert answer.read() == b"x"
                break
            except urllib.error.URLError:
                assert process.poll() is None, (project.path / "said").read_text()
                assert time.monotonic() < until
                time.sleep(0.2)
    finally:
        process.terminate()
        process.wait(60)
    text = (project.path / "said").read_text()
    assert ("requests that need it are answered with 503 until it is there" in text) is gone
    if not gone:
        assert project.m9m("db", "status").returncode == 0
