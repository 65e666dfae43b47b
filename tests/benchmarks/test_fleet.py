from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import fleet
from benchmarks.fleet import SHAPES, excess, simulate
from flask_m9m.ratelimit.gcra import Hit
from flask_m9m.ratelimit.leases import Leases
from flask_m9m.ratelimit.limit import RateLimit

SECOND = 1_000_000


class Late(Leases):
    """Leases that are spent up to a second after their moment."""

    def spend(
        self, limit: RateLimit, client: str, cost: int, clock: Callable[[], int]
    ) -> Hit | None:
        return super().spend(limit, client, cost, lambda: clock() - SECOND)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fleet", *arguments])
    return fleet.main()


def test_no_fleet_is_ever_over_its_limit_and_a_chart_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    drawn = tmp_path / "leases.svg"
    assert run(monkeypatch, "--quick", "--chart", str(drawn)) == 0
    assert "most requests over the limit in any window: 0\n" in capsys.readouterr().out
    assert ET.parse(drawn).getroot().tag.endswith("svg")


def test_a_lease_spent_after_its_moment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert simulate(SHAPES["ambush"], 256, 5, seconds=21, leases=Late).over > 1
    monkeypatch.setattr(fleet, "simulate", partial(simulate, leases=Late))
    assert run(monkeypatch, "--quick", "--shape", "ambush") == 1


def test_the_same_seed_gives_the_same_figures() -> None:
    first, second = (simulate(SHAPES["crowd"], 16, 5, seconds=5, seed=7) for _ in range(2))
    assert first == second


@given(
    st.builds(RateLimit, st.integers(1, 50), st.just(1), st.integers(1, 10)),
    st.lists(st.integers(0, 2 * SECOND), min_size=1, max_size=40),
)
def test_the_deepest_debt_is_that_of_the_worst_window(limit: RateLimit, times: list[int]) -> None:
    times.sort()
    worst = max(
        (last - first + 1 - limit.burst) * limit.interval - (times[last] - times[first])
        for first in range(len(times))
        for last in range(first, len(times))
    )
    assert excess(limit, times) == max(0, worst) / limit.interval


@given(
    st.builds(RateLimit, st.integers(1, 50), st.just(1), st.integers(1, 100)),
    st.integers(1, 8),
    st.integers(1, 60),
    st.lists(st.integers(0, SECOND // 5), min_size=1, max_size=200),
)
def test_no_fleet_of_any_size_is_over_any_limit(
    limit: RateLimit, workers: int, lease: int, gaps: list[int]
) -> None:
    times = [sum(gaps[: number + 1]) for number in range(len(gaps))]
    shape = fleet.Shape(
        "any", limit, lambda _chance, _seconds: [(now, "one") for now in times], fleet.any_worker
    )
    assert simulate(shape, workers, lease).over == 0
