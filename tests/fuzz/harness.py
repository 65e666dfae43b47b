"""What a fuzz harness is, and the loop that runs one: outcomes, forgeries, cost.

A case is a function of the seed and its number, so both are enough to have it again.

Cost is CPU time of the thread. It is compared with the median of the cases of the same group
(`Harness.group`). All requests are of one group, whatever is in their fields of up to 16 KiB: the
dearest may cost five times the usual request, and no more. What has to be read in full (settings,
envelopes, bodies) is grouped by what there is to read, in powers of two. On a busy machine any case
seems dear once: one that does is measured again, in turns with one that cost the median, and the
minima of both are compared. What costs less than a plain request is not dear.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any
from unittest.mock import patch

DEAREST = 5
"""How many times the median a case may cost."""

LONGEST = 16_384
"""The longest field of a case, in characters."""

CHEAP = 100_000
"""What a plain request costs, in nanoseconds."""

_SETTLED = 400  # costs before a median counts
_KEPT = 4_000  # costs of a group that are kept
_AGAIN = 60
_WARM = 10  # measurements without a pause
_MOST = 2**62  # nanoseconds
_COLLECT = 2_000  # cases between two garbage collections


class Wrong(Exception):
    """An outcome that must not be."""


@dataclass(frozen=True)
class Finding:
    """A case with a wrong outcome, or a dear one."""

    harness: str
    seed: str
    number: int
    case: object
    why: str

    def __str__(self) -> str:
        again = f"scripts/fuzz {self.harness} --seed {self.seed} --replay {self.number}"
        text = repr(self.case)
        if len(text) > 600:
            text = f"{text[:300]} … {text[-300:]} ({len(text)} characters)"
        return f"{self.harness}: {self.why}\n  again: {again}\n  case:  {text}"


class Harness:
    """Makes cases, runs them and tells what their outcomes are.

    Args:
        folder: an empty folder, for databases and files.

    Attributes:
        name: as `scripts/fuzz` takes it.
        outcomes: those that have to occur within a thousand cases, or the harness tests nothing.
        cheap: what is not dear, whatever it is compared with, in nanoseconds.
    """

    name = ""
    outcomes: tuple[str, ...] = ()
    cheap = CHEAP

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, random: Random) -> Any:
        """Make a case; the same from the same state of `random`."""
        raise NotImplementedError

    def run(self, case: Any) -> Any:
        """Run a case: this is what is measured, and nothing may be raised that is no result."""
        raise NotImplementedError

    def check(self, case: Any, result: Any) -> str:
        """Name the outcome.

        Raises:
            Wrong: it must not be.
        """
        raise NotImplementedError

    def group(self, case: Any, result: Any) -> Hashable:
        """Tell with which cases to compare a case's cost."""
        return "requests"

    def forget(self) -> None:
        """Empty caches, before a case is measured again."""

    def close(self) -> None:
        """Close what is open."""


@dataclass
class Report:
    """What became of the cases."""

    cases: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    medians: dict[Hashable, float] = field(default_factory=dict)
    dearest: float = 0.0
    """The largest ratio of a case's cost to its median."""


class _Costs:
    """The costs of a harness, by group."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, list[int]] = defaultdict(list)
        self._seen: Counter[Hashable] = Counter()
        self.medians: dict[Hashable, float] = {}
        self.usual: dict[Hashable, Any] = {}
        """A case of each group that cost its median."""

    def note(self, group: Hashable, cost: int, case: Any, cheap: int) -> bool:
        """Keep a cost, and tell whether it seems dear."""
        seen, kept = self._seen[group], self._kept[group]
        if len(kept) < _KEPT:
            kept.append(cost)
        else:
            kept[seen * 7_919 % _KEPT] = cost
        self._seen[group] = seen + 1
        if seen % _SETTLED == _SETTLED - 1:
            self.medians[group] = median(kept)
        middle = self.medians.get(group, float("inf"))
        if middle <= cost < 1.1 * middle:
            self.usual[group] = case
        return cost > max(cheap, DEAREST * middle) and group in self.usual


def fuzz(
    harness: Harness, seed: str, cases: int, seconds: float = float("inf"), first: int = 0
) -> Report:
    """Run a harness, until there are so many cases, or findings, or so much time has passed."""
    report, costs, begin = Report(), _Costs(), time.monotonic()
    with _without_collections() as collect:
        for number in range(first, first + cases):
            if report.cases % _COLLECT == 0:
                collect()
            if len(report.findings) >= 8 or time.monotonic() - begin > seconds:
                break
            report.cases += 1
            case = harness.make(Random(f"{seed}:{number}"))
            found = _tried(harness, case, costs, report)
            if found:
                report.findings.append(Finding(harness.name, seed, number, case, found))
    report.medians = costs.medians
    report.seconds = time.monotonic() - begin
    return report


def _tried(harness: Harness, case: Any, costs: _Costs, report: Report) -> str | None:
    """Run a case, and tell what is wrong with it."""
    try:
        before = time.thread_time_ns()
        result = harness.run(case)
        cost = time.thread_time_ns() - before
        report.outcomes[harness.check(case, result)] += 1
    except Wrong as wrong:
        return str(wrong)
    except Exception as error:
        return "".join(traceback.format_exception(error)[-4:])
    group = harness.group(case, result)
    if costs.note(group, cost, case, harness.cheap):
        ratio, cost = compared(harness, case, costs.usual[group])
        if ratio > DEAREST:
            return f"costs {ratio:.1f} medians of {group} ({cost / 1_000:.0f} µs)"
        report.dearest = max(report.dearest, ratio)
    elif middle := costs.medians.get(group, 0):
        report.dearest = max(report.dearest, min(DEAREST, cost / middle))
    return None


def compared(harness: Harness, case: Any, usual: Any) -> tuple[float, int]:
    """Measure a case and a usual one in turns, until the case is not dear.

    Returns:
        How many times as much it costs, and its cost in nanoseconds.
    """
    dear = plain = _MOST
    for attempt in range(_AGAIN):
        if attempt % _WARM == 0:
            time.sleep(0.002 * attempt)
        dear = min(dear, measured(harness, case))
        plain = min(plain, measured(harness, usual))
        if dear <= max(harness.cheap, DEAREST * plain):
            return min(DEAREST, dear / max(plain, 1)), dear
    return dear / max(plain, 1), dear


def measured(harness: Harness, case: Any) -> int:
    """Return what a case costs in nanoseconds."""
    harness.forget()
    before = time.thread_time_ns()
    harness.run(case)
    return time.thread_time_ns() - before


@contextmanager
def _without_collections() -> Iterator[Any]:
    """Collect garbage between cases and not within."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield gc.collect
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def no_chance(seed: str = "flask-m9m") -> Iterator[None]:
    """Make the same secrets, salts and ids each time, so that a case can be had again."""
    octets = Random(seed).randbytes
    with patch("os.urandom", octets), patch("random._urandom", octets):
        yield
