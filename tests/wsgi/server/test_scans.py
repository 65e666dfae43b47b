"""What tools that others use to look at a server say about one of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .certificates import make_certificate
from .conftest import ROOT, Server

PAGE = """\
from flask import Flask
from flask_m9m import M9M
app = Flask(__name__)
M9M(app)
app.add_url_rule("/", "index", lambda: "<!doctype html><title>x</title><p>A page.")
app.add_url_rule("/scheme", "scheme", lambda: {})
"""


def run(name: str, *arguments: str) -> str:
    """Run one of the scripts, and return what it says of a server that passes."""
    command = [sys.executable, str(ROOT / "scripts" / name), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=400)
    if result.stdout.startswith("skipped: "):
        pytest.skip(result.stdout.strip())
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_a_scan_of_tls_finds_nothing_weak(server: Server, tmp_path: Path) -> None:
    server.configure(make_certificate(tmp_path))
    server.start()
    assert "nothing weak" in run("check-tls", f"localhost:{server.port}")


@pytest.mark.parametrize("preset", ["api", "web"])
def test_a_scan_of_headers_gives_the_best_grade(
    server: Server, tmp_path: Path, preset: str
) -> None:
    pair = make_certificate(tmp_path)
    security = {"jwt": {"enabled": False}, "headers": {"preset": preset}}
    server.configure(pair, security=security)
    if preset == "web":
        (server.directory / "app.py").write_text(PAGE)
    server.start()
    said = run("check-headers", f"localhost:{server.port}", str(pair.certificate))
    assert "A+" in said
    assert "10 of 10 tests passed" in said


def test_a_scan_of_tls_says_what_is_wrong(server: Server) -> None:
    server.configure(server={"timeouts": {"header": "1s"}})
    server.start()
    command = [sys.executable, str(ROOT / "scripts" / "check-tls"), f"localhost:{server.port}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=400)
    if result.stdout.startswith("skipped: "):
        pytest.skip(result.stdout.strip())
    assert (result.returncode, result.stdout) == (1, "no TLS server answers there\n")


@pytest.mark.parametrize("name", ["check-tls", "check-headers"])
def test_a_tool_that_is_missing_is_no_failure(tmp_path: Path, name: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / name), "localhost:1"]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={"PATH": str(tmp_path)}
    )
    assert result.returncode == 0
    assert result.stdout.startswith("skipped: ")
