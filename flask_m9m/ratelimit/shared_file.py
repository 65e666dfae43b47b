"""SharedFile: a limit's file as this process has it open, with a lock for each bucket.

A POSIX lock belongs to the process, and closing any descriptor of the file drops all of the
process's locks on it (fcntl(2)). So all stores of a process share one descriptor for each file,
which is never closed, and a thread takes a lock of the process before it locks a byte range.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..processes.forking import fork_safe_lock, watch
from ..processes.polled_lock import PAUSE
from ..processes.shared_directory import SharedDirectory, UnsafeFile
from .file_calls import Place, calls_on
from .limit import RateLimit
from .limit_files import BUCKET, BUCKETS, HEADER, LimitFiles, read_header
from .store import StoreFailure

PATIENCE = 0.25
"""Seconds without any progress after which the holder of a bucket's lock has stopped."""

_LONGEST_WAIT = 2.0  # seconds, whatever progress a holder makes
_LOCKS_LOST_AFTER = 2.0  # seconds
_STRIPES = 64
_LONGEST_PAUSE = 0.01
_FEWEST_PAUSES = 25
_TRIES = 20
_REMEMBERED = 2_048


class SharedFile:
    """An open file of buckets.

    Attributes:
        descriptor: the open file's descriptor.
        limit: the file's limit.
        calls: reads and writes the buckets.
        place: returns where a client's count is; caches the last results.
    """

    place: Callable[[str], Place]

    def __init__(self, descriptor: int, key: bytes, limit: RateLimit) -> None:
        self.descriptor = descriptor
        self.limit = limit
        self.calls = calls_on(descriptor)
        self._key = key
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """Start with new locks: the old ones may be held by threads that no longer exist."""
        self._timeouts_since: float | None = None
        turns = [(threading.Lock(), self.calls.make_buffer()) for _ in range(_STRIPES)]
        self.place = lru_cache(maxsize=_REMEMBERED)(partial(self._place, turns))

    def _place(self, turns: list[tuple[threading.Lock, Any]], client: str) -> Place:
        name = client.encode("utf-8", "surrogatepass")
        tag = int.from_bytes(blake2b(name, digest_size=8, key=self._key).digest(), "little")
        bucket = tag % BUCKETS
        offset = HEADER + bucket * BUCKET
        turn, buffer = turns[bucket % _STRIPES]
        return self.calls.make_place(tag, offset, turn, buffer)

    def lock(self, place: Place) -> None:
        """Lock a place's bucket for this thread, which may hold only one such lock.

        Raises:
            StoreFailure: the holder of the lock has stopped.
            OSError: the file can no longer be used.
        """
        turn = place.turn
        if turn.acquire(False):
            try:
                if not place.lock():
                    return
            except BaseException:
                turn.release()
                raise
            turn.release()
        self._wait_for(place)

    def unlock(self, place: Place) -> None:
        """Unlock a place's bucket."""
        try:
            if place.unlock():
                self.calls.unlock_again(place)
        finally:
            place.turn.release()

    def _wait_for(self, place: Place) -> None:
        """Lock a bucket as soon as its holder releases it.

        The locks are tried at intervals: a thread that is woken by a lock holds it before it has
        the interpreter lock, and keeps everybody waiting until then. The number of pauses counts
        as well as their time, because the holder may be a thread that waits for its turn as this
        one does. The holder goes on as long as its process uses a processor.
        """
        begun = since = time.monotonic()
        activity, pauses, pause = self.calls.activity(place), 0, PAUSE
        while not self._locks(place):
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            pauses += 1
            now = time.monotonic()
            if now - since > PATIENCE and pauses >= _FEWEST_PAUSES:
                before, activity = activity, self.calls.activity(place)
                if activity == before or now - begun > _LONGEST_WAIT:
                    raise self._stopped(place, now)
                since, pauses = now, 0

    def _locks(self, place: Place) -> bool:
        """Lock a place's bucket if nobody else has; tell whether it is locked now."""
        if not place.turn.acquire(False):
            return False
        locked = False
        try:
            locked = not place.lock() or self.calls.lock_again(place)
        finally:
            if not locked:
                place.turn.release()
        return locked

    def _stopped(self, place: Place, now: float) -> StoreFailure:
        if place.turn.acquire(False):
            place.turn.release()
            return StoreFailure("another process does not release its lock on a bucket")
        self._renew_lost_locks(now)
        return StoreFailure("another thread does not release its lock on a bucket")

    def _renew_lost_locks(self, now: float) -> None:
        """Replace the locks between threads if waits for them have timed out for long.

        A signal handler that raises may end a thread's hit after it took such a lock and before
        the block that releases it.
        """
        if self._timeouts_since is None:
            self._timeouts_since = now
        elif now - self._timeouts_since > _LOCKS_LOST_AFTER:
            self.after_fork()

    def buckets(self) -> bytes:
        """Read all buckets, which others may change meanwhile."""
        return os.pread(self.descriptor, BUCKETS * BUCKET, HEADER)


class _OpenFiles:
    """The files that this process has open, by device and inode."""

    def __init__(self) -> None:
        self._lock = fork_safe_lock()
        self._files: dict[tuple[int, int], SharedFile] = {}

    def file(self, files: LimitFiles, limit: RateLimit) -> SharedFile:
        """Return a limit's open file: open it if necessary, and create it if it is missing.

        Raises:
            UnsafeFile: another user could change the file or the directory.
            StoreFailure: it cannot be opened or created.
        """
        path = files.path_of(limit)
        try:
            files.directory.make()
            with self._lock:
                for _ in range(_TRIES):
                    with suppress(FileNotFoundError):  # it was removed meanwhile
                        found = self._open_or_build(files, limit, path)
                        if found is not None:
                            return found
        except UnsafeFile:
            raise
        except OSError as error:
            raise StoreFailure(f"{path}: {error.strerror}") from error
        raise StoreFailure(f"{path}: other processes keep replacing the file")

    def existing(self, files: LimitFiles, path: Path) -> SharedFile | None:
        """Return an existing file, opened; `None` if it is missing or damaged.

        Raises:
            UnsafeFile: another user could change it.
        """
        try:
            with self._lock:
                found = self._open(files.directory, path)
        except UnsafeFile:
            raise
        except OSError:
            return None
        return found if isinstance(found, SharedFile) else None

    def _open_or_build(self, files: LimitFiles, limit: RateLimit, path: Path) -> SharedFile | None:
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
        if built is None:  # it is damaged already, or its header cannot represent this limit
            os.close(descriptor)
        return built

    def _open(self, directory: SharedDirectory, path: Path) -> SharedFile | int:
        """Open a file; return its inode instead if it is damaged.

        A file that this process has open is not opened a second time, not even to check it.
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
            return known  # moved here meanwhile; the second descriptor must stay open too
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
    """Tell whether a descriptor is still open, and is that of this file."""
    try:
        return os.path.samestat(os.fstat(descriptor), status)
    except OSError:
        return False


_open_files = _OpenFiles()
open_file = _open_files.file
open_existing = _open_files.existing
