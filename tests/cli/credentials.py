"""An app that keeps credentials, and its commands."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
import subprocess
from contextlib import chdir
from pathlib import Path
from typing import Any, ClassVar

from flask import Flask

from flask_m9m import M9M
from flask_m9m.cli import m9m
from flask_m9m.testing import make_settings
from tests.cli.conftest import SECRET, Folder
from tests.databases import settle

CASES = json.loads((Path(__file__).parents[1] / "credentials" / "n8n-samples.json").read_text())[
    "cases"
]
SAMPLES = [one for one in CASES if one["keyName"] == "simple" and one["plaintextName"] == "json"]
INSTANCE_KEY = "test_key"
VALUE = "sk-hunter2secret"
DATA = json.dumps({"apiKey": VALUE})


def new_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


class Kept(Folder):
    """A folder with an app that keeps credentials; its commands run in this process."""

    credentials: ClassVar[dict[str, Any]] = {}

    def m9m(
        self, *arguments: str, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        app = Flask("app", instance_path=str(self.path / "instance"))
        M9M(app, settings=make_settings({"credentials": self.credentials}))
        with chdir(self.path):
            result = app.test_cli_runner().invoke(m9m, arguments, input=stdin, env=environ)
        settle()
        app.extensions["m9m"].database.close()
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess([], result.exit_code, result.stdout, result.stderr)


def use_keys(kept: Kept, key: str, previous: str = "", **credentials: Any) -> None:
    """Give the app other keys, in this process and in others."""
    previous_keys = [previous] if previous else []
    kept.credentials = {"encryption_key": key, "previous_keys": previous_keys, **credentials}
    kept.write(".env", f"M9M_JWT_SECRET={SECRET}\n")
    kept.write("config.yaml", json.dumps({"credentials": kept.credentials}))


def done(folder: Kept, *arguments: str, stdin: str = "", **environ: str) -> str:
    result = folder.m9m("credential", *arguments, stdin=stdin, **environ)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def failed(folder: Kept, *arguments: str, stdin: str = "", **environ: str) -> str:
    result = folder.m9m("credential", *arguments, stdin=stdin, **environ)
    assert (result.returncode, result.stdout) == (1, ""), result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert VALUE not in result.stderr
    return result.stderr


def create(folder: Kept, name: str = "Slack", *arguments: str) -> str:
    said = done(folder, "create", name, "--type", "apiKey", *arguments, stdin=DATA)
    return said.removeprefix("created ")


def listed(folder: Kept) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(done(folder, "list", "-o", "json"))
    return found


def data_of(folder: Kept, credential_id: str) -> Any:
    return json.loads(done(folder, "get", credential_id, "--show", "-o", "json"))["data"]


def database(folder: Kept) -> sqlite3.Connection:
    return sqlite3.connect(folder.path / "instance" / "m9m" / "m9m.db")


def everything(folder: Kept) -> str:
    """Return a hash of all rows of all tables."""
    with database(folder) as connection:
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()


def write_export(folder: Kept, *more: dict[str, Any]) -> list[str]:
    """Write the samples as n8n exports them; return the arguments that import them."""
    records = [
        {"id": f"id{n}", "name": one["format"], "type": "githubApi", "data": one["ciphertext"]}
        for n, one in enumerate(SAMPLES)
    ]
    folder.write("export.json", json.dumps([*records, *more]))
    rows = [
        {"id": one["dekId"], "value": one["wrappedDek"], "algorithm": "aes-256-gcm"}
        for one in SAMPLES
        if "dekId" in one
    ]
    folder.write("rows.json", json.dumps(rows))
    write_key(folder)
    return ["export.json", "--from=n8n", "--key-file=key", "--deployment-keys=rows.json"]


def write_key(folder: Kept, key: str = INSTANCE_KEY, mode: int = 0o600) -> None:
    folder.write("key", f"{key}\n")
    (folder.path / "key").chmod(mode)
