"""SharedStore: rate limits of all processes of a machine, in files that they share.

A bucket is eight slots of 16 bytes, two little-endian integers each: a client's hash (BLAKE2b of
eight bytes under the file's key) and its theoretical arrival time in microseconds since boot. The
hash also selects the client's bucket. A slot whose time has passed is free. A slot whose time is
further ahead than the limit's tolerance is damaged, and free as well. So nothing has to be swept,
and no client is blocked for longer than a full bucket takes to drain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ..errors import SettingsError
from ..processes.boot_clock import boot_clock
from ..processes.forking import watch
from ..processes.shared_directory import SharedDirectory, UnsafeFile
from .file_calls import BUCKET_FORMAT, SLOT_FORMAT, FileCalls, Place
from .gcra import Hit, give_back, known, look, refused, take
from .limit import MICROSECONDS, RateLimit
from .limit_files import BUCKET, LimitFiles
from .shared_file import SharedFile, open_existing, open_file
from .store import LimitStore, Spender, StoreFailure

_TRUSTED_FOR = MICROSECONDS  # until a path is checked again
_MOST_FILES = 256


class SharedStore(LimitStore):
    """Theoretical arrival times in files, one file for each distinct limit.

    In a full bucket, the client that would have all its tokens again first loses its slot. If all
    clients there are at their limit, a new client is refused, so that a flood of addresses frees
    nobody.

    Args:
        directory: where the files are.
        clock: a clock in microseconds since boot.
    """

    where = "by all workers of this machine"

    def __init__(self, directory: SharedDirectory, clock: Callable[[], int] = boot_clock) -> None:
        self._files = LimitFiles(directory)
        self._clock = clock
        self._open: dict[str, tuple[SharedFile, int]] = {}
        watch(self)

    def after_fork(self) -> None:
        """Check open files again before their next use: a daemon may have closed them."""
        self._open.clear()

    def prepare(self, limits: Iterable[RateLimit]) -> None:
        """Check the directory and these limits' files.

        Raises:
            SettingsError: another user could change them.
        """
        try:
            for limit in limits:
                self._open_file(limit)
        except StoreFailure as failure:
            if isinstance(failure.__cause__, UnsafeFile):
                raise SettingsError([failure.__cause__.problem]) from None
            # The file may become usable later; until then the policy for failures applies.

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""
        file, until = self._open.get(limit.key) or self._open_file(limit)
        place = file.place(client)
        try:
            file.lock(place)
            try:
                # Read the clock with the bucket locked: a time that another process wrote after
                # we read ours would seem too far ahead.
                now = self._clock()
                if until - _TRUSTED_FOR <= now <= until:
                    return _take(file.calls, place, limit, now, cost)
            finally:
                file.unlock(place)
        except OSError as error:
            raise self._forget_file(limit, error) from error
        self._open_file(limit)
        return self.hit(limit, client, cost)

    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        """Put back tokens that were taken."""
        with self._slot_of(limit, client) as slot:
            if slot is not None:
                slot.write(give_back(limit, slot.tat, self._clock(), cost))

    def peek(self, limit: RateLimit, client: str) -> Hit:
        """Return the result that the client's next request would get, and take nothing."""
        with self._slot_of(limit, client) as slot:
            now = self._clock()
            return look(limit, now if slot is None else slot.tat, now)

    def reset(self, limit: RateLimit, client: str) -> None:
        """Fill the client's bucket."""
        with self._slot_of(limit, client) as slot:
            if slot is not None:
                slot.write(0)

    def client_id(self, limit: RateLimit, client: str) -> str:
        """Return the store's identifier of a client: a hash that differs between files."""
        return f"{self._file(limit).place(client).tag:016x}"

    def spenders(self) -> Iterator[Spender]:
        """Return the clients whose buckets are not full, in no order."""
        for path in self._files.paths():
            try:
                file = open_existing(self._files, path)
            except UnsafeFile as error:
                raise StoreFailure(str(error), unsafe=True) from error
            if file is None:
                continue
            now, limit = self._clock(), file.limit
            for tag, tat in SLOT_FORMAT.iter_unpack(file.buckets()):
                if now < tat <= now + limit.tolerance:
                    yield Spender(limit, f"{tag:016x}", look(limit, tat, now))

    def _file(self, limit: RateLimit) -> SharedFile:
        found = self._open.get(limit.key)
        if found is None or not 0 <= found[1] - self._clock() <= _TRUSTED_FOR:
            found = self._open_file(limit)
        return found[0]

    def _open_file(self, limit: RateLimit) -> tuple[SharedFile, int]:
        """Open the file that is at the path of a limit's file now."""
        if len(self._open) >= _MOST_FILES and limit.key not in self._open:
            raise StoreFailure(f"the app uses more than {_MOST_FILES} different limits")
        self._open.pop(limit.key, None)
        try:
            file = open_file(self._files, limit)
        except UnsafeFile as error:
            raise StoreFailure(str(error), unsafe=True) from error
        self._open[limit.key] = found = (file, self._clock() + _TRUSTED_FOR)
        return found

    @contextmanager
    def _slot_of(self, limit: RateLimit, client: str) -> Iterator[_Slot | None]:
        """Lock a client's bucket, and yield the client's slot if it has one."""
        file = self._file(limit)
        place = file.place(client)
        try:
            file.lock(place)
            try:
                slots = file.calls.read(place)
                if place.tag in slots[::2]:
                    index = 2 * slots[::2].index(place.tag)
                    yield _Slot(file.calls, place, index, slots[index + 1])
                else:
                    yield None
            finally:
                file.unlock(place)
        except OSError as error:
            raise self._forget_file(limit, error) from error

    def _forget_file(self, limit: RateLimit, error: OSError) -> StoreFailure:
        """Have the file opened again at the next use; return the failure to raise."""
        self._open.pop(limit.key, None)
        return StoreFailure(f"{self._files.path_of(limit)}: {error}")


class _Slot(NamedTuple):
    """A client's slot in a locked bucket."""

    calls: FileCalls
    place: Place
    at: int
    tat: int

    def write(self, tat: int) -> None:
        self.calls.write(self.place, self.at, self.place.tag, tat)


def _take(calls: FileCalls, place: Place, limit: RateLimit, now: int, cost: int) -> Hit:
    """Take tokens from a client's slot in a locked bucket."""
    tag, buffer = place.tag, place.buffer
    slots = BUCKET_FORMAT.unpack(buffer) if place.fill() == BUCKET else calls.read(place)
    tags = slots[::2]
    if tag in tags:
        index = 2 * tags.index(tag)
        tat = slots[index + 1]
    else:
        index, tat = _slot_for(limit, slots, now), now
        if index < 0:
            return _no_room(limit, slots, now)
    tat, hit = take(limit, tat, now, cost)
    if hit.admitted:
        SLOT_FORMAT.pack_into(buffer, 8 * index, tag, tat)
        if place.store() != BUCKET:
            calls.write(place, index, tag, tat)
    return hit


def _slot_for(limit: RateLimit, slots: Sequence[int], now: int) -> int:
    """Return the index of a slot for a new client; -1 if all clients are at their limit."""
    times = [known(limit, tat, now) for tat in slots[1::2]]
    earliest = min(times)
    if earliest + limit.interval > now + limit.tolerance:
        return -1
    return 2 * times.index(earliest)


def _no_room(limit: RateLimit, slots: Sequence[int], now: int) -> Hit:
    """Return the refusal of a new client if all clients in the bucket are at their limit."""
    return refused(limit, min(known(limit, tat, now) for tat in slots[1::2]), now, 1)
