"""Two processes that take a new key one after the other, rotations before, between and after."""

from __future__ import annotations

from pathlib import Path

from .actors import Actor, Scene
from .conftest import new_key
from .killing import Outcome, faults_of

ROWS = 600


def test_processes_that_swap_keys_at_different_times_lose_and_undo_nothing(
    database_url: str, tmp_path: Path
) -> None:
    old, new, outcome = new_key(), new_key(), Outcome()
    folder = tmp_path / "scene"
    folder.mkdir()
    scene = Scene(database_url, str(folder))
    scene.fill(old, ROWS)
    rows = [list(range(first, ROWS, 30)) for first in (0, 1)]  # each process writes its own

    def serving(*keys: str, which: int) -> Actor:
        return Actor(scene, "serve", keys=keys, own=rows[which])

    def rotate(*keys: str) -> dict[str, int]:
        report = Actor(scene, "rotate", keys=keys, batch=ROWS).end()
        outcome.note_rotated(report)
        assert sum(report["keys_in_use"].values()) >= ROWS
        return dict(report["keys_in_use"])

    first, second = (serving(old, new, which=which) for which in (0, 1))
    rotate(new, old)  # too early: both still seal with the old key
    outcome.note_served(first.end())
    first = serving(new, old, which=0)
    rotate(new, old)  # and one of them does
    rotate(old, new)  # by one who has not swapped yet: back to the old key
    outcome.note_served(second.end())
    second = serving(new, old, which=1)
    assert len(rotate(new, old)) == 1
    outcome.note_served(first.end())
    outcome.note_served(second.end())
    assert outcome.faults + faults_of(scene, [new], outcome.made) == []
    assert min(outcome.reads, outcome.writes) > 0
