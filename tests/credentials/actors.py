"""Processes that use one store of credentials at once: those that serve, and those that rotate.

`python -m tests.credentials.actors` reads what it is to do as one line of JSON. One that serves
goes on until its standard input ends, and then says what it saw. Of each row the board keeps the
version that was last written and confirmed, so that every read tells an update that was lost or
undone.
"""

from __future__ import annotations

import json
import mmap
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flask import Flask

from flask_m9m import M9M
from flask_m9m.credentials import Credentials, rotation
from flask_m9m.errors import DatabaseUnavailable
from flask_m9m.storage import SealedCredential, moment
from flask_m9m.testing import make_settings

ROOT = Path(__file__).parents[2]
PADDING = "x" * 200  # about 256 octets of data with the rest


@dataclass(frozen=True, slots=True)
class Scene:
    """One store of credentials.

    Attributes:
        url: the database.
        folder: of the board, and of the list of ids.
    """

    url: str
    folder: str

    @property
    def board(self) -> Path:
        return Path(self.folder, "versions")

    @property
    def ids(self) -> list[str]:
        found: list[str] = json.loads(Path(self.folder, "ids").read_text())
        return found

    def credentials(self, keys: Sequence[str]) -> tuple[Flask, M9M]:
        """Return an app that seals with the first key and reads with all."""
        own = {"encryption_key": keys[0], "previous_keys": list(keys[1:])}
        app = Flask("actor", root_path=self.folder, instance_path=self.folder)
        settings = make_settings({"database": {"url": self.url}, "credentials": own})
        return app, M9M(app, settings=settings)

    def fill(self, key: str, count: int) -> None:
        """Keep so many credentials, all of version 0."""
        app, m9m = self.credentials([key])
        with app.app_context():
            database = app.extensions["m9m"].database
            database.upgrade()
            m9m.credentials.create("first", "apiKey", {"apiKey": "keeps the canary"})
            with database.write() as transaction:
                rows = [sealed(m9m.credentials, n) for n in range(count)]
                transaction.credentials.add_all(rows)
            database.close()
        Path(self.folder, "ids").write_text(json.dumps([row.id for row in rows]))
        self.board.write_bytes(bytes(4 * count))

    @contextmanager
    def versions(self) -> Iterator[memoryview]:
        """Open the board: a number for each row, shared by all processes."""
        with open(self.board, "r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
            octets = memoryview(shared)
            numbers = octets.cast("I")
            try:
                yield numbers
            finally:
                numbers.release()
                octets.release()


def sealed(credentials: Credentials, number: int) -> SealedCredential:
    """Return a credential as `create` keeps it."""
    made = moment(1_750_000_000.0)
    identifier = f"{random.getrandbits(128):032x}"
    row = SealedCredential(identifier, f"row {number}", "apiKey", "", False, "", made, made)
    values = asdict(row) | {"envelope": credentials._encrypt(row, data_of(number, 0))}
    return SealedCredential(**values)


def data_of(number: int, version: int) -> dict[str, str]:
    return {"apiKey": f"{number}:{version}:{PADDING}"}


def version_in(data: Mapping[str, Any], number: int) -> int:
    """Return the version that a row's data is of.

    Raises:
        ValueError: it is another row's data, or none.
    """
    found, version, padding = data["apiKey"].split(":")
    if int(found) != number or padding != PADDING:
        raise ValueError(f"row {number} holds {data['apiKey'][:40]}")
    return int(version)


# What the processes do


class Serving:
    """Reads rows and writes some of them, as an app's workers do."""

    def __init__(self, credentials: Credentials, ids: Sequence[str], seen: memoryview) -> None:
        self._credentials = credentials
        self._ids = ids
        self._seen = seen
        self.report: dict[str, Any] = {"reads": 0, "writes": 0, "refused": 0, "faults": []}
        self.report["made"] = {}

    def read(self, number: int) -> None:
        """Read a row; what was confirmed before must be in it."""
        before = self._seen[number]
        found = version_in(self._credentials.get(self._ids[number]).data, number)
        after = self._seen[number]
        if not before <= found <= after + 1:
            fault = f"row {number} is of version {found}, {before} to {after} were confirmed"
            raise ValueError(fault)
        self.report["reads"] += 1

    def write(self, number: int) -> None:
        """Write the next version of a row that no other process writes."""
        version = self._seen[number] + 1
        self._credentials.update(self._ids[number], data=data_of(number, version))
        self._seen[number] = version
        self.report["writes"] += 1

    def make(self, number: int) -> None:
        """Keep one more, and forget every second one of these."""
        made = self._credentials.create(f"more {number}", "apiKey", data_of(number, 0))
        if number % 2:
            self._credentials.delete(made.id)
        self.report["made"][made.id] = number

    def go_on(self, own: Sequence[int], ended: threading.Event) -> None:
        """Read and write until it ends; `own` are the rows to write."""
        while not ended.is_set():
            self._attempt(self.read, random.randrange(len(self._ids)))
            time.sleep(0.001)  # leaves others something of the processor
            if own:
                number = random.choice(own)
                self._attempt(self.write, number)
                self._attempt(self.read, number)
                if self.report["writes"] % 20 == 0:
                    self._attempt(self.make, self.report["writes"] // 20)

    def _attempt(self, act: Any, number: int) -> None:
        try:
            act(number)
        except DatabaseUnavailable:
            self.report["refused"] += 1
        except Exception as error:
            self.report["faults"].append(f"{act.__name__} {type(error).__name__}: {error}")


def serve(scene: Scene, task: Mapping[str, Any]) -> None:
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    app, m9m = scene.credentials(task["keys"])
    with app.app_context(), scene.versions() as versions:
        serving = Serving(m9m.credentials, scene.ids, versions)
        serving.read(0)
        print("begun", flush=True)
        threading.Thread(target=wait_for_end, daemon=True).start()
        serving.go_on(task["own"], ended)
        print(json.dumps(serving.report), flush=True)


def rotate(scene: Scene, task: Mapping[str, Any]) -> None:
    rotation._BATCH = task["batch"]
    app, m9m = scene.credentials(task["keys"])
    with app.app_context():
        m9m.credentials.list("none")
        print("begun", flush=True)
        result = m9m.credentials.rotate()
        print(
            json.dumps(
                {
                    "resealed": result.resealed,
                    "unreadable": list(result.unreadable),
                    "keys_in_use": dict(result.keys_in_use),
                }
            ),
            flush=True,
        )


# Starting them


class Actor:
    """A process that does what it is told, from the moment on that it says so.

    Args:
        scene: where.
        role: `serve` or `rotate`.
        task: `keys`, the first one seals; `own`, the rows to write; `batch`, how many rows are
            rotated at once.
    """

    def __init__(self, scene: Scene, role: str, **task: Any) -> None:
        command = [sys.executable, "-m", "tests.credentials.actors"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
        self._write(json.dumps({"scene": asdict(scene), "role": role, **task}) + "\n")
        if self._line() != "begun":
            raise AssertionError(f"{role} did not begin")

    def kill(self) -> bool:
        """Kill it; tell whether it was still at work."""
        running = self.process.poll() is None
        self.process.kill()
        self._close()
        return running

    def end(self) -> dict[str, Any]:
        """Have it end, and return what it says."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        report: dict[str, Any] = json.loads(self._line())
        self._close()
        return report

    def _write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(30)


if __name__ == "__main__":
    told = json.loads(sys.stdin.readline())
    {"serve": serve, "rotate": rotate}[told["role"]](Scene(**told["scene"]), told)
