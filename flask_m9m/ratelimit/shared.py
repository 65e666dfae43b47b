"""SharedStore: rate limits of all processes of a machine, in files that they share.

A bucket is eight slots of 16 bytes, two little-endian integers each: a client's hash (BLAKE2b of
eight bytes under the file's key) and its theoretical arrival time in microseconds since boot. The
hash also says which bucket is the client's. A slot whose time has passed is free by definition,
and one further ahead than the limit's tolerance is damaged and free, so that nothing is ever
swept and nobody is shut out longer than a full bucket takes to drain.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import pread, pwrite
from typing import NamedTuple

from .. import forking
from ..errors import SettingsError
from ..processes.boot_clock import boot_clock
from ..processes.shared_directory import SharedDirectory, UnsafeFile
from .gcra import Hit, give_back, known, look, refused, take
from .limit import MICROSECONDS, RateLimit
from .limit_files import BUCKET, SLOTS, LimitFiles
from .shared_file import SharedFile, open_existing, open_file
from .store import LimitStore, Spender, StoreFailure

_BUCKET = struct.Struct(f"<{2 * SLOTS}Q")
_SLOT = struct.Struct("<2Q")
_LOOK_AGAIN = MICROSECONDS
_MOST_FILES = 256


class SharedStore(LimitStore):
    """Theoretical arrival times in files, one for each distinct limit.

    In a full bucket the client that would be back at a full bucket first gives way; if all are at
    their limit the newcomer is refused: a flood of addresses frees nobody.

    Args:
        directory: where the files are.
        clock: microseconds since boot.
    """

    where = "by all workers of this machine"

    def __init__(self, directory: SharedDirectory, clock: Callable[[], int] = boot_clock) -> None:
        self._files = LimitFiles(directory)
        self._clock = clock
        self._open: dict[str, tuple[SharedFile, int]] = {}
        forking.watch(self)

    def after_fork(self) -> None:
        """Look at what is open before it is used again: daemons close what they have open."""
        self._open.clear()

    def prepare(self, limits: Iterable[RateLimit]) -> None:
        """Look at the directory and at what lies there under these limits' names.

        Raises:
            SettingsError: it is not ours alone.
        """
        try:
            for limit in limits:
                self._look(limit)
        except StoreFailure as failure:
            if isinstance(failure.__cause__, UnsafeFile):
                raise SettingsError([failure.__cause__.problem]) from None
            # It can be had later; until then the policy for failures holds.

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""
        file, until = self._open.get(limit.key) or self._look(limit)
        tag, offset, turn = file.place(client)
        try:
            file.lock(offset, turn)
            try:
                # Read while nobody else can write here: a time that was written later than ours
                # was read would look as if it were too far ahead.
                now = self._clock()
                if until - _LOOK_AGAIN <= now <= until:
                    return _take(file.descriptor, offset, tag, limit, now, cost)
            finally:
                file.unlock(offset, turn)
        except OSError as error:
            raise self._damaged(limit, error) from error
        self._look(limit)
        return self.hit(limit, client, cost)

    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        """Put tokens back that were taken."""
        with self._slot_of(limit, client) as slot:
            if slot is not None:
                slot.write(give_back(limit, slot.tat, self._clock(), cost))

    def peek(self, limit: RateLimit, client: str) -> Hit:
        """Return what the client's next request would be told, and take nothing."""
        with self._slot_of(limit, client) as slot:
            now = self._clock()
            return look(limit, now if slot is None else slot.tat, now)

    def reset(self, limit: RateLimit, client: str) -> None:
        """Fill the client's bucket."""
        with self._slot_of(limit, client) as slot:
            if slot is not None:
                slot.write(0)

    def client_id(self, limit: RateLimit, client: str) -> str:
        """Return by what the store knows a client: a hash that differs from file to file."""
        return f"{self._file(limit).place(client).tag:016x}"

    def spenders(self) -> Iterator[Spender]:
        """Return, in no order, whose buckets are not full."""
        for path in self._files.paths():
            try:
                file = open_existing(self._files, path)
            except UnsafeFile as error:
                raise StoreFailure(str(error), unsafe=True) from error
            if file is None:
                continue
            now, limit = self._clock(), file.limit
            for tag, tat in _SLOT.iter_unpack(file.buckets()):
                if now < tat <= now + limit.tolerance:
                    yield Spender(limit, f"{tag:016x}", look(limit, tat, now))

    def _file(self, limit: RateLimit) -> SharedFile:
        found = self._open.get(limit.key)
        if found is None or not 0 <= found[1] - self._clock() <= _LOOK_AGAIN:
            found = self._look(limit)
        return found[0]

    def _look(self, limit: RateLimit) -> tuple[SharedFile, int]:
        """Open what lies under the path of a limit's file now."""
        if len(self._open) >= _MOST_FILES and limit.key not in self._open:
            raise StoreFailure(f"more than {_MOST_FILES} different limits")
        self._open.pop(limit.key, None)
        try:
            file = open_file(self._files, limit)
        except UnsafeFile as error:
            raise StoreFailure(str(error), unsafe=True) from error
        self._open[limit.key] = found = (file, self._clock() + _LOOK_AGAIN)
        return found

    @contextmanager
    def _slot_of(self, limit: RateLimit, client: str) -> Iterator[_Slot | None]:
        """Lock a client's slot, if it has one."""
        file = self._file(limit)
        tag, offset, turn = file.place(client)
        try:
            file.lock(offset, turn)
            try:
                slots = _read(file.descriptor, offset)
                if tag in slots[::2]:
                    slot = 2 * slots[::2].index(tag)
                    yield _Slot(file.descriptor, offset + 8 * (slot + 1), slots[slot + 1])
                else:
                    yield None
            finally:
                file.unlock(offset, turn)
        except OSError as error:
            raise self._damaged(limit, error) from error

    def _damaged(self, limit: RateLimit, error: OSError) -> StoreFailure:
        """Have a file looked at again that was cut short or can no longer be used."""
        self._open.pop(limit.key, None)
        return StoreFailure(f"{self._files.path_of(limit)}: {error}")


class _Slot(NamedTuple):
    """A client's slot, while it is locked."""

    descriptor: int
    offset: int
    tat: int

    def write(self, tat: int) -> None:
        pwrite(self.descriptor, tat.to_bytes(8, "little"), self.offset)


def _take(descriptor: int, offset: int, tag: int, limit: RateLimit, now: int, cost: int) -> Hit:
    """Take tokens in a bucket that is locked."""
    slots = _read(descriptor, offset)
    tags = slots[::2]
    if tag in tags:
        slot = 2 * tags.index(tag)
        tat = slots[slot + 1]
    else:
        slot, tat = _slot_for(limit, slots, now), now
        if slot < 0:
            return _no_room(limit, slots, now)
    tat, hit = take(limit, tat, now, cost)
    if hit.admitted:
        pwrite(descriptor, _SLOT.pack(tag, tat), offset + 8 * slot)
    return hit


def _read(descriptor: int, offset: int) -> tuple[int, ...]:
    data = pread(descriptor, BUCKET, offset)
    if len(data) < BUCKET:
        raise OSError(f"cut short before byte {offset + BUCKET}")
    return _BUCKET.unpack(data)


def _slot_for(limit: RateLimit, slots: Sequence[int], now: int) -> int:
    """Return where a newcomer's slot begins, or -1 where all are at their limit."""
    times = [known(limit, tat, now) for tat in slots[1::2]]
    earliest = min(times)
    if earliest + limit.interval > now + limit.tolerance:
        return -1
    return 2 * times.index(earliest)


def _no_room(limit: RateLimit, slots: Sequence[int], now: int) -> Hit:
    """Return what a newcomer is told where all are at their limit."""
    return refused(limit, min(known(limit, tat, now) for tat in slots[1::2]), now, 1)
