"""A moment of each harness, and that harnesses find what is wrong."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from . import harness as harnesses
from .harness import Harness, Wrong, fuzz
from .harnesses import BY_NAME
from .mutation import Mutator

CASES = 600


@pytest.mark.parametrize("name", BY_NAME)
def test_strangers_crash_nothing_forge_nothing_and_cost_little(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "flask_m9m")
    harness = BY_NAME[name](tmp_path)
    try:
        report = fuzz(harness, "test", CASES)
    finally:
        harness.close()
    assert report.findings == [], "\n".join(map(str, report.findings))
    assert set(harness.outcomes) <= report.outcomes.keys()


class Sloppy(Harness):
    """A harness of a reader that takes "dear" at a high price, and "forged" at all."""

    name = "sloppy"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._texts = Mutator(["valid"], ["x"])

    def make(self, random: Random) -> str:
        number = random.randrange(1_000)
        return {0: "dear", 1: "forged", 2: "crash"}.get(number) or self._texts.text(random)

    def run(self, case: str) -> Any:
        if case == "crash":
            raise ZeroDivisionError
        return sum(range(2_000_000 if case == "dear" else 2_000))

    def check(self, case: str, result: Any) -> str:
        if case == "forged":
            raise Wrong("FORGERY")
        return "read"


def test_a_harness_finds_crashes_forgeries_and_what_is_dear(tmp_path: Path) -> None:
    report = fuzz(Sloppy(tmp_path), "1", 5_000)
    found = {finding.case: finding for finding in report.findings}
    assert {"crash", "forged", "dear"} == set(found)
    assert "ZeroDivisionError" in found["crash"].why
    assert found["forged"].why == "FORGERY"
    assert "medians" in found["dear"].why
    assert f"scripts/fuzz sloppy --seed 1 --replay {found['dear'].number}" in str(found["dear"])


def test_a_case_that_seems_dear_once_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy machine takes its time from any case."""
    costs = iter([900_000, 100_000, 800_000, 100_000, 450_000, 100_000])
    monkeypatch.setattr(harnesses, "measured", lambda *_: next(costs))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert harnesses.compared(Sloppy(tmp_path), "valid", "valid") == (4.5, 450_000)


def test_a_case_is_had_again_from_its_seed_and_number(tmp_path: Path) -> None:
    for name in ("authorization", "envelopes", "signed-urls"):
        cases = []
        for folder in ("first", "second"):
            (tmp_path / name / folder).mkdir(parents=True)
            harness = BY_NAME[name](tmp_path / name / folder)
            cases.append([harness.make(Random(f"1:{number}")) for number in range(50)])
            harness.close()
        assert cases[0] == cases[1]
