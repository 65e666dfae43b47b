"""The demo's chapter on the audit trail: a failed login, and somebody who would hide it."""

from __future__ import annotations

import json
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from demo_client import Demo
from demo_server import EXAMPLE, make_user, serving

LOGIN = "/api/v1/auth/login"
FAILED = "authentication_failed"


def keep_watch(demo: Demo, environment: Mapping[str, str], folder: Path) -> None:
    """A wrong password is in the trail, and whoever changes or removes that row is found out."""
    demo.chapter("What happened, and whether that is true")
    path = folder / "audit.db"
    watched = {
        **environment,
        "M9M_AUDIT_SINKS": "database",
        "M9M_DATABASE_URL": f"sqlite:///{path}",
        "M9M_ENCRYPTION_KEY": secrets.token_hex(32),
    }
    make_user(watched, secrets.token_urlsafe(12))
    with serving(watched, folder / "log") as demo.port:
        guess = {"username": "ann", "password": "a guess"}
        demo.step(
            "Somebody guesses ann's password",
            "POST",
            LOGIN,
            body=guess,
            expect=401,
            code="INVALID_CREDENTIALS",
        )
        row = failed_login(watched)
    said = " ".join(str(row.get(name)) for name in ("seq", "event", "outcome", "subject"))
    right = said.endswith(f"{FAILED} INVALID_CREDENTIALS ann")
    demo.fact(f"flask m9m audit list --event {FAILED}", said, right=right)
    verified(demo, "flask m9m audit verify", watched, "")

    seq = row.get("seq")
    execute(path, "UPDATE m9m_audit SET subject = 'bob' WHERE seq = ?", seq)
    verified(demo, "In the database it is bob now", watched, f"row {seq} was changed")
    execute(path, "UPDATE m9m_audit SET subject = 'ann' WHERE seq = ?", seq)
    verified(demo, "… and ann again", watched, "")
    execute(path, "DELETE FROM m9m_audit WHERE seq = ?", seq)
    verified(demo, "The row is gone", watched, f"row {seq} is missing at the end")


def failed_login(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the row of the failed login, which is written within a second or so."""
    for _ in range(20):
        found = audit(environment, "list", "--event", FAILED, "-o", "json").stdout
        if rows := json.loads(found):
            first: dict[str, Any] = rows[0]
            return first
    return {}


def verified(demo: Demo, why: str, environment: Mapping[str, str], problem: str) -> None:
    result = audit(environment, "verify")
    said = result.stderr.strip() or result.stdout.splitlines()[-1]
    right = result.stderr.strip() == problem and result.returncode == bool(problem)
    demo.fact(why, said, right=right)


def execute(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement, values)


def audit(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `flask m9m audit`."""
    command = [sys.executable, "-m", "flask", "--app", str(EXAMPLE), "m9m", "audit", *arguments]
    return subprocess.run(command, env=dict(environment), capture_output=True, text=True)
