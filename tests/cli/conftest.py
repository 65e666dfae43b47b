from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .credentials import Kept

APP = """\
from flask import Blueprint, Flask
from flask_m9m import M9M, public, rate_limit, require_auth, require_signed_url

app = Flask(__name__)
m9m = M9M(app)

@app.get("/items")
@require_auth(scopes="items:read")
def items(): return "items"

@app.post("/login")
@public
@rate_limit("5/minute", burst=1)
def login(): return "login"

@app.get("/export")
@require_signed_url(purpose="export")
def export(): return "export"

@app.get("/report")
@require_signed_url
@require_auth
def report(): return "report"

@app.get("/undecided")
def undecided(): return "undecided"
"""
SECRET = "0123456789abcdef" * 3


class Folder:
    """An empty folder in which commands run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def run(
        self, *arguments: str, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=self.path,
            input=stdin,
            env=self.environ(**environ),
            capture_output=True,
            text=True,
            timeout=60,
        )

    def python(self, code: str, **environ: str) -> str:
        """Run a program, and return what it prints."""
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.path,
            env=self.environ(**environ),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def m9m(
        self, *arguments: str, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        result = self.run("m9m", *arguments, stdin=stdin, **environ)
        assert "Traceback" not in result.stderr
        return result

    def environ(self, **environ: str) -> dict[str, str]:
        kept = {
            name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ
        }
        return {**kept, "HOME": str(self.path), **environ}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def project(folder: Folder) -> Folder:
    folder.write("app.py", APP)
    folder.write(".env", f"M9M_JWT_SECRET={SECRET}\n")
    folder.write(
        "config.yaml",
        "security: {default_access: authenticated, "
        "cors: {allowed_origins: ['https://app.example.com', 'https://*.example.net']}}",
    )
    return folder


@pytest.fixture
def key() -> str:
    """The first encryption key of a test."""
    from .credentials import new_key

    return new_key()


@pytest.fixture
def kept(tmp_path: Path, key: str) -> Kept:
    """A folder with an app that has an encryption key."""
    from .credentials import Kept, use_keys

    made = Kept(tmp_path)
    made.write("app.py", APP)
    use_keys(made, key)
    return made
