"""Audit lines: written where the app's logging sends them, at its level, and nowhere else."""

from __future__ import annotations

import subprocess
import sys

import pytest

APP = """\
from flask import Flask
from flask_m9m import M9M, require_auth
{after_import}
app = Flask("app")
M9M(app, settings={{"security": {{"jwt": {{"secret": "4f6b" * 12}}}}}})

@app.get("/x")
@require_auth
def view():
    return "x"

assert app.test_client().get("/x").status_code == 401
"""
TO_STDOUT = 'logging.basicConfig(stream=sys.stdout, format="%(message)s", level={level})'
DICT = """\
from logging.config import dictConfig
out = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
dictConfig({"version": 1, "handlers": {"out": out}, LOGGERS})
"""


def run(setup: str) -> str:
    """Run an app whose logging is set up by these lines; return what it wrote."""
    code = "import logging, sys\n" + APP.format(after_import=setup)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return "\n".join(
        line for line in (done.stdout + done.stderr).splitlines() if "access_denied" in line
    )


@pytest.mark.parametrize(
    ("setup", "lines"),
    [
        pytest.param("", 0, id="no logging"),
        pytest.param(TO_STDOUT.format(level="logging.WARNING"), 0, id="a root logger at WARNING"),
        pytest.param(TO_STDOUT.format(level="logging.INFO"), 1, id="a root logger at INFO"),
        pytest.param(
            TO_STDOUT.format(level="logging.WARNING")
            + "\nlogging.getLogger('flask_m9m').setLevel(logging.INFO)",
            1,
            id="our loggers at INFO",
        ),
        pytest.param(
            TO_STDOUT.format(level="logging.INFO")
            + "\nlogging.getLogger('flask_m9m.audit').setLevel(logging.ERROR)",
            0,
            id="the audit logger at ERROR",
        ),
        pytest.param(
            DICT.replace("LOGGERS", '"root": {"level": "INFO", "handlers": ["out"]}'),
            1,
            id="dictConfig after the import",
        ),
        pytest.param(
            DICT.replace(
                "LOGGERS", '"loggers": {"flask_m9m.audit": {"level": "INFO", "handlers": ["out"]}}'
            ),
            1,
            id="dictConfig of the audit logger alone",
        ),
    ],
)
def test_the_apps_logging_decides_whether_lines_are_written(setup: str, lines: int) -> None:
    assert run(setup).count("access_denied") == lines


def test_a_handler_that_gets_no_lines_for_its_loggers_level_is_told_of_once() -> None:
    setup = "logging.getLogger('flask_m9m.audit').addHandler(logging.StreamHandler(sys.stdout))"
    code = "import logging, sys\n" + APP.format(after_import=setup) + "app.test_client().get('/x')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    advice = "logging.getLogger('flask_m9m.audit').setLevel(logging.INFO)"
    assert done.stderr.count(advice) == 1
