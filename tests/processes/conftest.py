from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_m9m.settings import settings_of
from flask_m9m.storage import Database
from tests.gunicorn import ROOT, gunicorn

WORKERS, THREADS = 4, 2


@pytest.fixture
def port(database_url: str, tmp_path: Path) -> Iterator[int]:
    """The port of four workers over one database, of each kind in turn."""
    database = Database(settings_of({"database": {"url": database_url}}).database, str(tmp_path))
    database.upgrade()
    database.close()
    options = ["-w", str(WORKERS), "--threads", str(THREADS), "--keep-alive", "10"]
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "M9M_DATABASE_URL": database_url,
        "M9M_PERFORMANCE_RATE_LIMIT_PATH": str(tmp_path / "limits"),
        "M9M_SECURITY_LOCKOUT_ENABLED": "false",  # the tests ask with bad keys all the time
        "M9M_JWT_SECRET": secrets.token_urlsafe(48),
    }
    with gunicorn(tmp_path, "tests.processes.app:app", *options, environ=environ) as found:
        yield found
