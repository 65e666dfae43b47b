"""Count files: the shared memory-mapped files in which a machine's processes count metrics.

Each process counts in a mapping of its own file, so its counts survive if it is killed. It creates
and locks the file (flock(2)) under a draft's name, and then renames it, so that other processes
see complete files only. The lock ends with the process. The next process that sums the counts
adds each unlocked file to `past`, under another lock, and removes the file. `past` lists the files
that it includes, so that no file is added twice, even if a process dies in between.

A file has 65,536 bytes: 512 entries of 128. The first entry is the magic, `m9m-ct-1`, then zeros.
Each other entry is:

    0   value (8 bytes, in the machine's byte order)
    8   length of the key (2 bytes, little-endian); 0: this entry and all after it are free
    10  the key, UTF-8, at most 118 bytes

`past` is JSON: `{"counts": {key: value}, "folded": [names of files]}`.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from mmap import mmap
from pathlib import Path

from ...processes.shared_directory import SharedDirectory, allocate
from .counts import ENTRIES, ENTRY, LONGEST_KEY

logger = logging.getLogger("flask_m9m")

MAGIC = b"m9m-ct-1"
SIZE = ENTRY * ENTRIES

_WAIT = 1.0  # seconds
_ABANDONED = 60  # seconds after which a draft's process must have died
_READ = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = _READ | os.O_CREAT | os.O_EXCL


class CountFiles:
    """The count files of one app.

    Args:
        directory: the directory of the files.
    """

    def __init__(self, directory: SharedDirectory) -> None:
        self._directory = directory
        self._past = directory.path_of("past.json")

    def create(self) -> mmap:
        """Create a file for this process; return its mapping, which keeps the file locked.

        Raises:
            OSError: the directory is not safe, not writable or full.
        """
        self._directory.make()
        path = self._directory.path_of(f"{secrets.token_hex(8)}.counts")
        draft = path.with_name(f".{path.name}")
        descriptor = os.open(draft, _CREATE, 0o600)
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
            allocate(descriptor, SIZE)
            os.pwrite(descriptor, MAGIC, 0)
            mapped = mmap(descriptor, SIZE)  # has its own descriptor, which keeps the lock
            os.rename(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        with suppress(OSError):
            self.totals(wait=0.0)  # clears old files even if the metrics are never read
        return mapped

    def totals(self, wait: float = _WAIT) -> Counter[str]:
        """Return the counts of all processes, including ended ones.

        Args:
            wait: how long to wait for the lock at most, in seconds.

        Raises:
            OSError: another process still holds the lock, or the files cannot be read.
        """
        with self._locked(wait):
            past, folded = self._read_past()
            gone, totals = [], Counter(past)
            for path in self._directory.paths("*.counts"):
                if path.name in folded:
                    path.unlink(missing_ok=True)
                    continue
                counts, abandoned = _read(path)
                totals.update(counts)
                if abandoned:
                    past.update(counts)
                    gone.append(path)
            if gone:
                self._fold(past, gone)
            self._clear_drafts()
            return totals

    def _fold(self, past: Counter[str], gone: list[Path]) -> None:
        draft = self._past.with_name(f".{self._past.name}")
        draft.unlink(missing_ok=True)
        text = json.dumps({"counts": past, "folded": [path.name for path in gone]})
        descriptor = os.open(draft, _CREATE, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        os.rename(draft, self._past)
        for path in gone:
            path.unlink(missing_ok=True)

    def _read_past(self) -> tuple[Counter[str], set[str]]:
        try:
            past = json.loads(self._past.read_text("ascii"))
            return Counter(past["counts"]), set(past["folded"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            logger.warning(
                "metrics: %s is damaged; the counts of ended processes are lost", self._past
            )
        return Counter(), set()

    def _clear_drafts(self) -> None:
        for draft in self._directory.path.glob(f".{self._directory.path_of('*.counts').name}"):
            with suppress(OSError):
                if time.time() - draft.lstat().st_mtime > _ABANDONED:
                    draft.unlink()

    @contextmanager
    def _locked(self, wait: float) -> Iterator[None]:
        path = self._directory.path_of("counts.lock")
        descriptor = os.open(path, _READ | os.O_CREAT, 0o600)
        try:
            until = time.monotonic() + wait
            while True:
                try:
                    flock(descriptor, LOCK_EX | LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise
                    time.sleep(0.005)
            yield
        finally:
            os.close(descriptor)


def _read(path: Path) -> tuple[Counter[str], bool]:
    """Return the counts in a file, and whether its process has ended."""
    counts: Counter[str] = Counter()
    try:
        descriptor = os.open(path, _READ)
    except OSError:
        return counts, False
    try:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
            abandoned = True
        except BlockingIOError:
            abandoned = False
        data = os.pread(descriptor, SIZE, 0)
    finally:
        os.close(descriptor)
    if len(data) == SIZE and data.startswith(MAGIC):
        for key, value in entries(data):
            counts[key] += value
    return counts, abandoned


def entries(data: bytes) -> Iterator[tuple[str, int]]:
    """Yield the keys and values in the bytes of a file."""
    for start in range(ENTRY, SIZE, ENTRY):
        length = int.from_bytes(data[start + 8 : start + 10], "little")
        if not 0 < length <= LONGEST_KEY:
            return
        key = data[start + 10 : start + 10 + length].decode("utf-8", "replace")
        yield key, int.from_bytes(data[start : start + 8], sys.byteorder)
