"""Benchmarks run: each with as little as it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "options",
    [
        "side_by_side --rounds 2 --requests 20",
        "encryption --rounds 2 --times 20",
        "credentials --records 200 --rounds 2 --times 10",
    ],
    ids=lambda options: options.partition(" ")[0],
)
def test_a_benchmark_runs(options: str) -> None:
    run(options)


@pytest.mark.usefixtures("postgres_server")
def test_the_benchmark_of_api_keys_runs() -> None:
    run("api_keys --keys 20000 --rounds 2 --requests 100")


@pytest.mark.usefixtures("redis_server")
def test_the_benchmark_of_limits_runs() -> None:
    run("limits --rounds 2 --hits 50 --addresses 200")


def run(options: str) -> None:
    command = [sys.executable, "-m", *f"benchmarks.{options}".split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
