"""The REST API, driven by its OpenAPI document: as a stranger, a user and an admin.

Schemathesis reads the document from a server and sends what it describes, what it forbids, and
chains of requests. All its checks hold: no 500, the statuses, fields and bodies that the document
has, no invalid data accepted and no valid data refused, no access without a credential, nothing of
use after it was deleted.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from flask_m9m import M9M, public
from flask_m9m.testing import make_settings
from tests.gunicorn import ROOT

CALLERS = ("stranger", "user", "admin")
CONFIG = Path(__file__).with_name("schemathesis.toml")
HOOKS = "tests.fuzz.schemathesis_hooks"
PREFIX = "/api/v1"
TOKENS = "/tokens"
"""Where the hooks get a new token for each request, as logging out ends one."""


def make_app(folder: Path) -> Flask:
    """Make an app with the REST API and a user for each caller but the stranger."""
    app = Flask("app")
    settings = {
        "api": {"enabled": True},
        "database": {"url": f"sqlite:///{folder / 'm9m.db'}"},
        "credentials": {"encryption_key": secrets.token_hex(32)},
        "security": {
            "jwt": {"cookie": {"enabled": True}, "expiration": "12h"},
            "lockout": {"enabled": False},  # or most logins would be 429
        },
    }
    m9m = M9M(app, settings=make_settings(settings))
    m9m.credential_checker("slackApi")(lambda credential: len(credential.data) > 1)
    with app.app_context():
        m9m.users.create("user", "correct horse", scopes=["a", "b"])
        m9m.users.create("admin", "correct horse", roles=["admin"], scopes=["a", "m9m:manage"])

    @app.get(f"{TOKENS}/<name>")
    @public
    def token(name: str) -> str:
        user = next(user for user in m9m.users.list() if user.username == name)
        return m9m.tokens.issue(name, user.scopes, user.roles, fresh=True)

    return app


class Quiet(WSGIRequestHandler):
    """Writes no line for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serve an app in threads, and give its URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def drive(url: str, caller: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Send what the document describes and forbids, and return how that ended.

    Args:
        url: the server's.
        caller: one of `CALLERS`.
        folder: where Schemathesis writes what it keeps.
        options: more of its command line.
    """
    command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={CONFIG}", "run"]
    command += [f"{url}{PREFIX}/openapi.json", "--no-color", "--warnings=off"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": HOOKS}
    if caller != CALLERS[0]:
        environ["M9M_TEST_TOKENS"] = f"{url}{TOKENS}/{caller}"
    return subprocess.run(
        [*command, *options],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def fuzz_rest(folder: Path, seed: str, examples: int, seconds: float) -> bool:
    """Drive a server as each caller, print what Schemathesis says, and tell whether all held.

    Args:
        folder: an empty folder.
        seed: makes the same requests again.
        examples: for each operation, phase and caller.
        seconds: for each caller, at most.
    """
    held = True
    options = [f"--max-examples={examples}", f"--seed={zlib.crc32(seed.encode())}"]
    if seconds < float("inf"):
        options.append(f"--max-time={int(seconds)}")
    with serving(make_app(folder)) as url:
        for caller in CALLERS:
            done = drive(url, caller, folder, *options)
            print(f"rest, as {caller}, seed {seed}:\n{done.stdout}", flush=True)
            held = held and done.returncode == 0
    return held
