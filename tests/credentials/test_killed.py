"""A rotation that is killed at any instant: nothing is lost, and the next one finishes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .killing import killed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


def test_a_rotation_that_is_killed_again_and_again_loses_nothing(
    database_url: str, tmp_path: Path
) -> None:
    outcome = killed(database_url, tmp_path / "scene", rows=1_500, kills=3, batch=50)
    assert outcome.faults == []
    assert outcome.kills >= 1  # some may have finished before
    assert outcome.reads > 0
    assert outcome.writes > 0
