"""The files in which the processes of a machine count, each in one of its own.

A process creates its file whole and locked (flock(2)) before it gets the name under which others
see it, and counts in a mapping of it: what it counted stays when it is killed. The lock goes when
the process does. Whoever sums up next adds such a file to `past`, under a lock of its own, and
removes it; `past` names what it has taken in, so that nothing is added twice whoever dies when.

A file has 65,536 bytes, 512 entries of 128; the first holds the magic, `m9m-ct-1`, then zeros:

    0   value (8 bytes, in the machine's order)
    8   length of the key (2 bytes, little-endian); 0: no entry yet, and none behind it
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

_WAIT = 1.0
_ABANDONED = 60  # seconds after which a file that never got its name is its maker's no more
_READ = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = _READ | os.O_CREAT | os.O_EXCL


class CountFiles:
    """The files of one app.

    Args:
        directory: where they lie.
    """

    def __init__(self, directory: SharedDirectory) -> None:
        self._directory = directory
        self._past = directory.path_of("past.json")

    def create(self) -> mmap:
        """Return a new file of this process's; it is locked as long as the mapping is there.

        Raises:
            OSError: the directory is not safe, there is no space, or nothing may be written.
        """
        self._directory.make()
        path = self._directory.path_of(f"{secrets.token_hex(8)}.counts")
        draft = path.with_name(f".{path.name}")
        descriptor = os.open(draft, _CREATE, 0o600)
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
            allocate(descriptor, SIZE)
            os.pwrite(descriptor, MAGIC, 0)
            mapped = mmap(descriptor, SIZE)  # with a descriptor of its own, which keeps the lock
            os.rename(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        with suppress(OSError):
            self.totals(wait=0.0)  # so that no files pile up where nobody ever asks
        return mapped

    def totals(self, wait: float = _WAIT) -> Counter[str]:
        """Return what all processes have counted, those that are gone too.

        Args:
            wait: for how many seconds, at most, others may be at it.

        Raises:
            OSError: somebody still is, or the files cannot be read.
        """
        with self._alone(wait):
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
            logger.warning("metrics: %s is damaged: what others counted is lost", self._past)
        return Counter(), set()

    def _clear_drafts(self) -> None:
        for draft in self._directory.path.glob(f".{self._directory.path_of('*.counts').name}"):
            with suppress(OSError):
                if time.time() - draft.lstat().st_mtime > _ABANDONED:
                    draft.unlink()

    @contextmanager
    def _alone(self, wait: float) -> Iterator[None]:
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
    """Return what a file counts, and whether its process is gone."""
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
    """Yield the keys and values in a file's bytes."""
    for start in range(ENTRY, SIZE, ENTRY):
        length = int.from_bytes(data[start + 8 : start + 10], "little")
        if not 0 < length <= LONGEST_KEY:
            return
        key = data[start + 10 : start + 10 + length].decode("utf-8", "replace")
        yield key, int.from_bytes(data[start : start + 8], sys.byteorder)
