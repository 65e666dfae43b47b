"""A rotation that is killed again and again, while other processes read and write.

`scripts/soak` runs it in full: 50 kills of a rotation of 10,000 rows, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask_m9m.storage import Database
from tests.credentials.actors import Actor, Scene, version_in
from tests.credentials.conftest import new_key
from tests.databases import empty_postgres, running_postgres

SECONDS_A_ROW = 1 / 5_000  # in batches of 50, beside others
WRITTEN = 40  # rows that are updated all the time


@dataclass
class Outcome:
    """What was seen.

    Attributes:
        kills: how many rotations were killed at work.
        left: how many rows were under the old key at each kill.
        resumed: how many the rotations sealed anew that were not killed.
        reads: of the processes that serve.
        writes: of those.
        faults: everything that is wrong.
        made: what was kept besides, by its id; an odd number says that it was deleted again.
        seconds: that it took.
    """

    kills: int = 0
    left: list[int] = field(default_factory=list)
    resumed: int = 0
    reads: int = 0
    writes: int = 0
    faults: list[str] = field(default_factory=list)
    made: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def note_served(self, report: dict[str, Any]) -> None:
        """Add what a process saw that served."""
        self.reads += report["reads"]
        self.writes += report["writes"]
        self.faults += report["faults"]
        self.faults += ["the database was not to be had"] * report["refused"]
        self.made.update(report["made"])

    def note_rotated(self, report: dict[str, Any]) -> None:
        """Add what came of a rotation."""
        self.resumed += report["resealed"]
        self.faults += [f"{one} does not open" for one in report["unreadable"]]


def killed(url: str, folder: Path, rows: int, kills: int, batch: int) -> Outcome:
    """Rotate so many rows, killed so many times, and look at what is left.

    The process that writes goes on sealing with the old key until all are killed, and through one
    rotation more, which it races for a few rows; it takes the new key before the last one.

    Args:
        url: an empty database.
        folder: an empty folder.
        rows: how many credentials.
        kills: how many times.
        batch: rows that a rotation seals at once.
    """
    begin, outcome = time.monotonic(), Outcome()
    old, new = new_key(), new_key()
    folder.mkdir(exist_ok=True)
    scene = Scene(url, str(folder))
    scene.fill(old, rows)
    own = list(range(0, rows, rows // WRITTEN))
    reading = Actor(scene, "serve", keys=[new, old], own=[])
    writing = Actor(scene, "serve", keys=[old, new], own=own)
    for remaining in range(kills, 0, -1):
        rotating = Actor(scene, "rotate", keys=[new, old], batch=batch)
        left = under_other_keys(scene, [new, old])
        time.sleep(random.uniform(0, 2 * left / (remaining + 1)) * SECONDS_A_ROW)
        outcome.kills += rotating.kill()
        outcome.left.append(under_other_keys(scene, [new, old]))
    # All at once: between reading and replacing there is time for many updates.
    outcome.note_rotated(Actor(scene, "rotate", keys=[new, old], batch=rows).end())
    outcome.note_served(writing.end())
    writing = Actor(scene, "serve", keys=[new, old], own=own)
    outcome.note_rotated(Actor(scene, "rotate", keys=[new, old], batch=batch).end())
    outcome.note_served(writing.end())
    outcome.note_served(reading.end())
    outcome.faults += faults_of(scene, [new], outcome.made)
    outcome.seconds = time.monotonic() - begin
    return outcome


def under_other_keys(scene: Scene, keys: Sequence[str]) -> int:
    """Return how many rows are sealed with another key than the first."""
    app, m9m = scene.credentials(keys)
    with app.app_context():
        seal = m9m.cipher.seal
        database: Database = app.extensions["m9m"].database
        found = database.read(lambda transaction: transaction.credentials.sealed_with())
        database.close()
    return sum(count for other, count in found.items() if other != seal)


def faults_of(scene: Scene, keys: Sequence[str], made: dict[str, int]) -> list[str]:
    """Return what is wrong with the rows, when only these keys are left.

    Args:
        scene: where they are.
        keys: those that are left.
        made: what was kept besides, by its id; an odd number says that it was deleted again.
    """
    faults: list[str] = []
    app, m9m = scene.credentials(keys)
    with app.app_context(), scene.versions() as versions:
        for number, identifier in enumerate(scene.ids):
            try:
                found = version_in(m9m.credentials.get(identifier).data, number)
                if found != versions[number]:
                    faults.append(f"row {number} ends with {found}, not {versions[number]}")
            except Exception as error:
                faults.append(f"row {number} ends with {type(error).__name__}: {error}")
        kept = {one.id for one in m9m.credentials.list()} - set(scene.ids)
        expected = {identifier for identifier, number in made.items() if number % 2 == 0}
        if len(kept) != len(expected) + 1 or not expected < kept:  # one holds the canary
            faults.append(f"{len(kept)} others are there, not {len(expected) + 1}")
        for identifier in expected & kept:
            version_in(m9m.credentials.get(identifier).data, made[identifier])
        app.extensions["m9m"].database.close()
    others = under_other_keys(scene, keys)
    return faults if others == 0 else [*faults, f"{others} rows are under another key"]


def show(name: str, outcome: Outcome) -> None:
    """Print what was seen."""
    print(
        f"{name}: {outcome.kills} kills in {outcome.seconds:.0f} s, rows left to rotate at each: "
        f"{' '.join(map(str, outcome.left))}"
    )
    print(
        f"{name}: those not killed sealed {outcome.resumed}; meanwhile {outcome.reads:,} reads and "
        f"{outcome.writes:,} updates; {len(outcome.faults)} faults",
        flush=True,
    )
    for fault in outcome.faults[:20]:
        print(f"    {fault}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--batch", type=int, default=50, help="rows that are sealed at once")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32))
    parser.add_argument("--most-seconds", type=float, default=900.0, help="then it has failed")
    options = parser.parse_args()
    faulthandler.dump_traceback_later(options.most_seconds, exit=True)
    print(f"seed {options.seed}")
    random.seed(options.seed)
    failed = False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        for name in ("SQLite", "PostgreSQL"):
            folder = Path(directory, name)
            if name == "SQLite":
                url = f"sqlite:///{folder}/m9m.db"
                outcome = killed(url, folder, options.rows, options.kills, options.batch)
            else:
                with (
                    running_postgres(Path(directory, "pg")) as server,
                    empty_postgres(server) as url,
                ):
                    outcome = killed(url, folder, options.rows, options.kills, options.batch)
            show(name, outcome)
            failed |= bool(outcome.faults) or outcome.kills < options.kills
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
