"""Counts: counters by key, for one process alone or summed over all processes of a machine."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from mmap import mmap
from typing import Protocol

from ...processes.forking import watch
from ...processes.polled_lock import PolledLock

logger = logging.getLogger("flask_m9m")

ENTRY = 128
ENTRIES = 512
LONGEST_KEY = ENTRY - 10
_IGNORED_CELL = 1  # in the first entry, which is never read


class SharedCounts(Protocol):
    """The counts of all processes of a machine, each in a file of its own."""

    def create(self) -> mmap:
        """Make this process's file and map it.

        Raises:
            OSError: the directory is not safe or cannot be written to.
        """
        ...

    def totals(self) -> Counter[str]:
        """Add up the counts of all processes.

        Raises:
            OSError: another process is adding them up, or the files cannot be read.
        """
        ...


class Counts:
    """Counters by key, which only grow.

    The file is opened at the first count, and a forked child opens its own.

    Args:
        files: the files that all processes share; without them this process counts alone.
    """

    def __init__(self, files: SharedCounts | None = None) -> None:
        self._files = files
        self._values: memoryview[int] | None = None
        self._bytes: memoryview[int]
        self._cells: dict[str, int] = {}
        self._lock = PolledLock()
        watch(self)

    def after_fork(self) -> None:
        """Drop the parent's open file, so that this process opens its own."""
        if self._files is not None and self._values is not None:
            self._values = None
            del self._bytes
            self._cells = {}

    def add(self, amounts: Iterable[tuple[str, int]]) -> None:
        """Add to several counts at once."""
        with self._lock:
            values = self._values or self._open()
            for key, amount in amounts:
                cell = self._cells.get(key) or self._claim(key)
                values[cell] += amount

    def totals(self) -> Counter[str]:
        """Return the counts of all processes.

        Raises:
            OSError: other processes hold the lock for too long, or the files cannot be read.
        """
        with self._lock:
            values = self._values or self._open()
            files = self._files
            if files is None:
                return Counter({key: values[cell] for key, cell in self._cells.items()})
        return files.totals()

    def _open(self) -> memoryview[int]:
        data = memoryview(bytearray(ENTRY * ENTRIES))
        if self._files is not None:
            try:
                data = memoryview(self._files.create())
            except OSError as error:
                logger.warning("metrics: this process counts alone: %s", error)
                self._files = None
        self._bytes = data
        values = self._values = data.cast("Q")
        return values

    def _claim(self, key: str) -> int:
        """Assign the next entry to a key; if no entry is left, the key is not counted."""
        number = len(self._cells) + 1
        text = key.encode("utf-8", "backslashreplace")[:LONGEST_KEY]
        if number >= ENTRIES:
            return _IGNORED_CELL
        start = number * ENTRY
        self._bytes[start + 10 : start + 10 + len(text)] = text
        self._bytes[start + 8 : start + 10] = len(text).to_bytes(2, "little")
        cell = self._cells[key] = start // 8
        return cell
