"""SharedFile: one limit's file as a process has it open, once, for as long as it lives.

A POSIX lock belongs to the process, and closing any descriptor of the file drops all of the
process's locks on it (fcntl(2)). So whatever stores a process has, they share one descriptor for
each file, which is never closed, and a lock of the process stands around every lock on a range.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from .. import forking
from ..processes.shared_directory import SharedDirectory, UnsafeFile
from .limit import RateLimit
from .limit_files import BUCKET, BUCKETS, HEADER, LimitFiles, read_header
from .store import StoreFailure

PATIENCE = 0.05
"""Seconds after which whoever holds a bucket's lock is taken for stopped."""

_DESPAIR = 2.0
_AT_ONCE = LOCK_EX | LOCK_NB
_STRIPES = 64
_PAUSE = 0.0002
_TRIES = 20
_REMEMBERED = 4_096


class Place(NamedTuple):
    """Where a client's count is.

    Attributes:
        tag: the client's hash.
        offset: where its bucket begins.
        turn: held by the thread of this process that is at the bucket, or at one of many others.
    """

    tag: int
    offset: int
    turn: threading.Lock


class SharedFile:
    """A file of buckets.

    It is read and written by calls and not mapped into memory, for an access to a mapping of a
    file that somebody has cut short kills the process.

    Attributes:
        descriptor: of the open file.
        limit: whose it is.
        place: given a client, where its count is; remembers the last ones.
    """

    place: Callable[[str], Place]

    def __init__(self, descriptor: int, key: bytes, limit: RateLimit) -> None:
        self.descriptor = descriptor
        self.limit = limit
        self._key = key
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Begin with locks that nobody holds."""
        self._in_vain_since: float | None = None
        turns = [threading.Lock() for _ in range(_STRIPES)]
        self.place = lru_cache(maxsize=_REMEMBERED)(partial(self._place, turns))

    def _place(self, turns: list[threading.Lock], client: str) -> Place:
        name = client.encode("utf-8", "surrogatepass")
        tag = int.from_bytes(blake2b(name, digest_size=8, key=self._key).digest(), "little")
        bucket = tag % BUCKETS
        return Place(tag, HEADER + bucket * BUCKET, turns[bucket % _STRIPES])

    def lock(self, offset: int, turn: threading.Lock) -> None:
        """Lock the bucket at an offset, for this thread alone; a thread locks but one.

        Raises:
            StoreFailure: somebody holds it and does not go on.
            OSError: the file can no longer be used.
        """
        if not turn.acquire(False) and not turn.acquire(timeout=PATIENCE):
            self._despair(time.monotonic())
            raise StoreFailure("a thread that holds a lock on a bucket does not go on")
        try:
            lockf(self.descriptor, _AT_ONCE, BUCKET, offset)
        except BaseException as error:
            try:
                if not isinstance(error, BlockingIOError | PermissionError):  # EAGAIN, or EACCES
                    raise
                self._wait_for(offset)
            except BaseException:
                turn.release()
                raise

    def unlock(self, offset: int, turn: threading.Lock) -> None:
        """Let the next one in."""
        try:
            lockf(self.descriptor, LOCK_UN, BUCKET, offset)
        finally:
            turn.release()

    def _despair(self, now: float) -> None:
        """Begin anew where turns have been waited for in vain for long.

        A signal's handler that raises may end a thread's hit between taking a turn and the block
        that gives it back.
        """
        if self._in_vain_since is None:
            self._in_vain_since = now
        elif now - self._in_vain_since > _DESPAIR:
            self.after_fork()

    def _wait_for(self, offset: int) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            time.sleep(_PAUSE)
            try:
                lockf(self.descriptor, _AT_ONCE, BUCKET, offset)
            except (BlockingIOError, PermissionError):
                if time.monotonic() > until:
                    raise StoreFailure(
                        "a process that holds a lock on a bucket does not go on"
                    ) from None
            else:
                return

    def buckets(self) -> bytes:
        """Return all buckets, as they are at about the same time."""
        return os.pread(self.descriptor, BUCKETS * BUCKET, HEADER)


class _Open:
    """The files that this process has open, by device and inode."""

    def __init__(self) -> None:
        self._lock = forking.lock(self)
        self._files: dict[tuple[int, int], SharedFile] = {}

    def file(self, files: LimitFiles, limit: RateLimit) -> SharedFile:
        """Open a limit's file where this process has not yet, and build it where there is none.

        Raises:
            UnsafeFile: it is none of ours.
            StoreFailure: it cannot be had.
        """
        path = files.path_of(limit)
        try:
            files.directory.make()
            with self._lock:
                for _ in range(_TRIES):
                    with suppress(FileNotFoundError):  # it went away meanwhile
                        found = self._once(files, limit, path)
                        if found is not None:
                            return found
        except UnsafeFile:
            raise
        except OSError as error:
            raise StoreFailure(f"{path}: {error.strerror}") from error
        raise StoreFailure(f"{path}: it is replaced again and again")

    def existing(self, files: LimitFiles, path: Path) -> SharedFile | None:
        """Open a file that is there; `None` where it is gone or damaged.

        Raises:
            UnsafeFile: it is none of ours.
        """
        try:
            with self._lock:
                found = self._open(files.directory, path)
        except UnsafeFile:
            raise
        except OSError:
            return None
        return found if isinstance(found, SharedFile) else None

    def _once(self, files: LimitFiles, limit: RateLimit, path: Path) -> SharedFile | None:
        damaged = None
        try:
            found = self._open(files.directory, path)
        except FileNotFoundError:
            pass
        else:
            if isinstance(found, SharedFile):
                return found
            damaged = found
        descriptor = files.build(limit, damaged)
        if descriptor is None:
            return None
        built = self._keep(descriptor)
        if built is None:  # somebody has damaged it already, or no header can tell this limit
            os.close(descriptor)
        return built

    def _open(self, directory: SharedDirectory, path: Path) -> SharedFile | int:
        """Open a file, or return the inode of one that is damaged.

        What this process has open already is not opened again, not even to look at it.
        """
        status = path.lstat()
        directory.check(path, status)
        known = self._files.get((status.st_dev, status.st_ino))
        if known is not None and _is_still(known.descriptor, status):
            return known if read_header(known.descriptor) is not None else status.st_ino
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        now = os.fstat(descriptor)
        known = self._files.get((now.st_dev, now.st_ino))
        if known is not None and _is_still(known.descriptor, now):
            return known  # moved here since; the second descriptor has to stay open as well
        try:
            directory.check(path, now)
        except UnsafeFile:
            os.close(descriptor)
            raise
        found = self._keep(descriptor)
        if found is None:
            os.close(descriptor)
            return now.st_ino
        return found

    def _keep(self, descriptor: int) -> SharedFile | None:
        header = read_header(descriptor)
        if header is None:
            return None
        status = os.fstat(descriptor)
        file = SharedFile(descriptor, *header)
        self._files[status.st_dev, status.st_ino] = file
        return file


def _is_still(descriptor: int, status: os.stat_result) -> bool:
    """Tell whether a descriptor is that of a file, and nobody has closed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), status)
    except OSError:
        return False


_open = _Open()
open_file = _open.file
open_existing = _open.existing
