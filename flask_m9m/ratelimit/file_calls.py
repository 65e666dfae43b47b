"""FileCalls: how a file of buckets is locked, read and written.

The standard library gives the interpreter lock (GIL) away around every system call. A thread that
holds a bucket then waits until each other running thread has had its turn, up to 5 ms each, and
whoever wants the bucket waits with it. On Linux the same calls are made through `ctypes`, which can
keep the interpreter lock: none of them waits, and each takes less than a microsecond. On other
systems `struct flock` has another layout, and the standard library is used.

The file is not mapped into memory: if another process truncates a mapped file, an access to the
mapping kills the process.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

from .limit_files import BUCKET, SLOTS

logger = logging.getLogger("flask_m9m")

BUCKET_FORMAT = struct.Struct(f"<{2 * SLOTS}Q")
SLOT_FORMAT = struct.Struct("<2Q")
_FLOCK = struct.Struct("hhxxxxqqixxxx")  # of Linux with 64 bits, under glibc and musl alike
_KNOWN_SYSTEMS = ("linux, x86_64, 64 bits", "linux, aarch64, 64 bits")
_BUSY = (errno.EAGAIN, errno.EACCES)


class Place(NamedTuple):
    """Where a client's count is, and the calls on its bucket.

    A call that fails returns another number than is documented. The caller holds `turn`; to read
    and write, it has locked the bucket as well.

    Attributes:
        tag: the client's hash.
        offset: where its bucket begins in the file.
        turn: the lock between this process's threads for the bucket, and for some others.
        lock: locks the bucket against other processes, without waiting, and returns 0.
        unlock: unlocks it and returns 0.
        fill: reads the bucket into the buffer and returns `BUCKET`.
        store: writes the buffer to the bucket and returns `BUCKET`.
        buffer: shared by all places of one turn.
    """

    tag: int
    offset: int
    turn: threading.Lock
    lock: Callable[[], int]
    unlock: Callable[[], int]
    fill: Callable[[], int]
    store: Callable[[], int]
    buffer: Any


class FileCalls:
    """The calls on one file, through the standard library.

    Args:
        descriptor: the open file's descriptor.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def make_buffer(self) -> Any:
        """Make the buffer of a turn."""
        return bytearray(BUCKET)

    def make_place(self, tag: int, offset: int, turn: threading.Lock, buffer: Any) -> Place:
        """Make a place; the arguments are its attributes."""
        return Place(
            tag,
            offset,
            turn,
            partial(self._lock, offset),
            partial(self._unlock, offset),
            partial(self._fill, offset, buffer),
            partial(self._store, offset, buffer),
            buffer,
        )

    def lock_again(self, place: Place) -> bool:
        """Find out why `place.lock` has just failed.

        Returns:
            Whether the bucket is locked now; if not, somebody else has locked it.

        Raises:
            OSError: the file can no longer be used.
        """
        return not self._lock(place.offset)

    def unlock_again(self, place: Place) -> None:
        """Unlock a bucket after `place.unlock` failed."""
        self._unlock(place.offset)

    def read(self, place: Place) -> tuple[int, ...]:
        """Return a bucket's slots, the tag and the time of each in turn.

        Raises:
            OSError: the file is too short, or cannot be read.
        """
        if place.fill() != BUCKET and self._fill(place.offset, place.buffer) != BUCKET:
            raise OSError(f"the file ends before byte {place.offset + BUCKET}")
        return BUCKET_FORMAT.unpack(place.buffer)

    def write(self, place: Place, index: int, tag: int, tat: int) -> None:
        """Write a slot of a bucket that has just been read.

        Args:
            place: the place that was read.
            index: the index of the slot's tag in the result of `read`.
            tag: a client's hash.
            tat: its theoretical arrival time.

        Raises:
            OSError: the file cannot be written.
        """
        SLOT_FORMAT.pack_into(place.buffer, 8 * index, tag, tat)
        if place.store() != BUCKET and self._store(place.offset, place.buffer) != BUCKET:
            raise OSError(f"the file ends before byte {place.offset + BUCKET}")

    def activity(self, place: Place) -> object:
        """Return a value that differs from an earlier one if the bucket's holder goes on.

        Here that is unknown: always `None`.
        """
        return None

    def _lock(self, offset: int) -> int:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, BUCKET, offset)
        except (BlockingIOError, PermissionError):  # EAGAIN, or EACCES
            return -1
        return 0

    def _unlock(self, offset: int) -> int:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, BUCKET, offset)
        return 0

    def _fill(self, offset: int, buffer: Any) -> int:
        return os.preadv(self._descriptor, [buffer], offset)

    def _store(self, offset: int, buffer: Any) -> int:
        return os.pwrite(self._descriptor, buffer, offset)


class _Library(NamedTuple):
    """The C library's functions, called with the interpreter lock kept, and what they need."""

    fcntl: Callable[..., int]
    pread: Callable[..., int]
    pwrite: Callable[..., int]
    fcntl_with_errno: Callable[..., int]
    errno: Callable[[], int]
    buffer: Callable[[int], Any]


class HeldFileCalls(FileCalls):
    """The calls on one file, through the C library, with the interpreter lock kept.

    `ctypes` passes integers as `int`, which libffi extends to the width of a register, and so to
    that of `size_t` and `off_t`.
    """

    def __init__(self, descriptor: int, library: _Library) -> None:
        super().__init__(descriptor)
        self._library = library

    def make_buffer(self) -> Any:
        return self._library.buffer(BUCKET)

    def make_place(self, tag: int, offset: int, turn: threading.Lock, buffer: Any) -> Place:
        descriptor, (c_fcntl, pread, pwrite, *_) = self._descriptor, self._library
        lock, unlock = (
            partial(c_fcntl, descriptor, fcntl.F_SETLK, _flock(kind, offset))
            for kind in (fcntl.F_WRLCK, fcntl.F_UNLCK)
        )
        fill, store = (
            partial(call, descriptor, buffer, BUCKET, offset) for call in (pread, pwrite)
        )
        return Place(tag, offset, turn, lock, unlock, fill, store, buffer)

    def lock_again(self, place: Place) -> bool:
        flock = _flock(fcntl.F_WRLCK, place.offset)
        if not self._library.fcntl_with_errno(self._descriptor, fcntl.F_SETLK, flock):
            return True
        return self._library.errno() not in _BUSY and super().lock_again(place)

    def activity(self, place: Place) -> object:
        """Return the process that holds the bucket, and the processor time that it has used."""
        query = _flock(fcntl.F_WRLCK, place.offset)
        kind, _, _, _, holder = _FLOCK.unpack(fcntl.fcntl(self._descriptor, fcntl.F_GETLK, query))
        if kind == fcntl.F_UNLCK:
            return time.monotonic()  # it has just gone on
        if holder <= 0:  # it is in another container
            return None
        try:
            return holder, time.clock_gettime_ns(_processor_clock_of(holder))
        except OSError:
            return holder


def _flock(kind: int, offset: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, offset, BUCKET, 0)


def _processor_clock_of(process: int) -> int:
    """Return the clock of a process's processor time: what Linux's clock_getcpuclockid(3) does."""
    return ~process << 3 | 2


def calls_on(descriptor: int) -> FileCalls:
    """Return the best calls on an open file for this system."""
    library = _c_library()
    return FileCalls(descriptor) if library is None else HeldFileCalls(descriptor, library)


@cache
def _c_library() -> _Library | None:
    """Load the C library; `None`, after a line in the log, if it cannot be used here."""
    system = f"{sys.platform}, {platform.machine()}, {8 * struct.calcsize('P')} bits"
    reason = system
    if system in _KNOWN_SYSTEMS:
        try:
            import ctypes

            found = ctypes.PyDLL(None)
            return _Library(
                found["fcntl"],
                found["pread"],
                found["pwrite"],
                ctypes.PyDLL(None, use_errno=True)["fcntl"],
                ctypes.get_errno,
                ctypes.create_string_buffer,
            )
        except (ImportError, OSError, AttributeError) as error:
            reason = f"{system}: {error}"
    logger.info(
        "rate limits: files are locked through the standard library, so that requests wait "
        "longer where many threads run (%s)",
        reason,
    )
    return None
