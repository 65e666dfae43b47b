"""A moment of the REST API under Schemathesis."""

from __future__ import annotations

from pathlib import Path

import pytest

from .rest import CALLERS, drive, make_app, serving

SEED = "--seed=1"
PHASES = {
    "stranger": ["--phases=fuzzing", "--max-examples=5"],
    "user": ["--phases=coverage,stateful", "--max-examples=8"],
    "admin": ["--phases=fuzzing,stateful", "--max-examples=8"],
}


@pytest.mark.parametrize("caller", CALLERS)
def test_the_rest_api_does_what_its_document_says_and_nothing_else(
    caller: str, tmp_path: Path
) -> None:
    with serving(make_app(tmp_path)) as url:
        done = drive(url, caller, tmp_path, SEED, *PHASES[caller])
    assert done.returncode == 0, done.stdout


def test_what_the_document_does_not_say_is_found(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    app.view_functions["m9m_health.health"] = lambda: {"status": "dead"}
    with serving(app) as url:
        done = drive(url, "stranger", tmp_path, SEED, "--include-path=/health")
    assert done.returncode == 1
    assert "violates schema" in done.stdout
