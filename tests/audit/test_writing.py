"""Threads and processes that write to one trail at once, and processes that end."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path

import pytest

from flask_m9m import M9M
from tests.gunicorn import ROOT, gunicorn

from .conftest import Audited, new_key

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")


@pytest.fixture
def environ(database_url: str, tmp_path: Path) -> dict[str, str]:
    """The environment of processes that share one database."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "M9M_DATABASE_URL": database_url,
        "M9M_DATABASE_POOL_TIMEOUT": "60s",  # 64 threads for fifteen connections
        "M9M_ENCRYPTION_KEY": new_key(),
        "M9M_JWT_SECRET": secrets.token_urlsafe(48),
        "M9M_AUDIT_SINKS": "database",
        "M9M_SECURITY_LOCKOUT_ENABLED": "false",
        "M9M_PERFORMANCE_RATE_LIMIT_PATH": str(tmp_path / "limits"),
    }


@pytest.fixture
def written(audited: Audited, environ: Mapping[str, str]) -> Iterator[M9M]:
    """The trail that those processes write."""
    app, m9m = audited(credentials={"encryption_key": environ["M9M_ENCRYPTION_KEY"]})
    with app.app_context():
        yield m9m


def counts(m9m: M9M) -> Counter[str]:
    """Return how often each event happened, and see that all rows are of one chain."""
    found = m9m.audit.verify()
    assert list(found.problems) == []
    rows = []
    before = None
    while page := m9m.audit.query(limit=10_000, before=before):
        rows += page
        before = page[-1].seq
    assert [row.seq for row in rows] == list(range(len(rows), 0, -1))
    assert found.rows == len(rows)
    happened: Counter[str] = Counter()
    for row in rows:
        happened[row.event] += row.details.get("repeated", 1)
    return happened


@pytest.mark.parametrize(
    ("processes", "threads", "rounds"), [(4, 16, 8), (1, 64, 8)], ids=["4 by 16", "64"]
)
def test_whoever_writes_at_once_makes_no_gap_and_no_fork(
    written: M9M,
    environ: Mapping[str, str],
    tmp_path: Path,
    processes: int,
    threads: int,
    rounds: int,
) -> None:
    command = [sys.executable, "-m", "tests.audit.writing", str(threads), str(rounds)]
    running = [
        subprocess.Popen(command, cwd=tmp_path, env=dict(environ), stderr=subprocess.PIPE)
        for _ in range(processes)
    ]
    try:
        for process in running:
            _, said = process.communicate(timeout=180)
            assert (process.returncode, said) == (0, b"")
    finally:
        for process in running:
            process.kill()
            process.communicate()
    expected = processes * threads * rounds
    assert counts(written) == {"counted": expected, "access_denied": expected}


@pytest.mark.parametrize("options", [[], ["--preload"], ["--threads", "4"]], ids=" ".join)
def test_a_server_that_is_told_to_end_writes_what_waits(
    written: M9M, environ: Mapping[str, str], tmp_path: Path, options: list[str]
) -> None:
    with gunicorn(
        tmp_path, "tests.audit.writing:app", "-w", "2", *options, environ=dict(environ)
    ) as port:
        for _ in range(20):
            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/x")
            assert connection.getresponse().status == 401
            connection.close()
    assert counts(written) == {"access_denied": 20}


@pytest.mark.parametrize("code", ["", "sys.exit(3)", "raise RuntimeError"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_process_that_ends_however_writes_what_waits(
    written: M9M, environ: Mapping[str, str], tmp_path: Path, code: str
) -> None:
    program = (
        f"import os, sys\nfrom tests.audit.writing import app\napp.test_client().get('/x')\n{code}"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=dict(environ), timeout=60)
    assert counts(written) == {"access_denied": 1}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_events_that_waited_at_a_fork_are_written_by_the_parent_alone(
    written: M9M, environ: Mapping[str, str], tmp_path: Path
) -> None:
    program = """\
import os
from tests.audit.writing import app
app.test_client().get("/x")
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        app.test_client().get("/x")
        raise SystemExit
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=dict(environ), timeout=60
    )
    assert done.returncode == 0
    assert counts(written) == {"access_denied": 4}
