from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flask_m9m.testing import client_as

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_demo_runs_and_finds_every_answer_right() -> None:
    result = subprocess.run(
        [sys.executable, "scripts/demo.py"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "answers are what they should be" in result.stdout


def readme_example(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)[number]


def test_the_readmes_first_example_is_short_and_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = readme_example("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M9M_JWT_SECRET", os.urandom(32).hex())
    namespace: dict[str, object] = {"__name__": "app"}
    exec(compile(example, "app.py", "exec"), namespace)
    client = namespace["app"].test_client()  # type: ignore[attr-defined]
    assert client.get("/workflows").status_code == 401
    ann = client_as(namespace["app"], "ann", ["workflow:read", "workflow:run"])  # type: ignore[arg-type]
    assert ann.get("/workflows").json == {"data": [], "owner": "ann"}
    assert [ann.post("/workflows/run").status_code for _ in range(2)] == [202, 429]


def test_the_readmes_production_file_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flask_m9m.settings import load

    (tmp_path / "config.yaml").write_text(readme_example("yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("M9M_JWT_SECRET", os.urandom(32).hex())
    settings = load().settings
    assert settings.security.jwt.expiration == 8 * 3600
    assert settings.security.cors.allowed_origins == ("https://your-app.com",)
