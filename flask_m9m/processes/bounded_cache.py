"""BoundedCache: a thread-safe cache of bounded size, which drops the least recently kept entry."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from .forking import fork_safe_lock

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """A cache for the threads of one process. A child process starts with a copy.

    Finding an entry takes no lock, and does not protect the entry from being dropped.

    Args:
        capacity: the most entries, at least 1.

    Attributes:
        find: returns the value of a key, or `None`. It is the `get` of a dictionary, so that
            finding a value calls no Python function.
    """

    __slots__ = ("_capacity", "_entries", "_lock", "find")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"the capacity of a cache must be at least 1, found {capacity}")
        self._capacity = capacity
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = fork_safe_lock()
        self.find: Callable[[K], V | None] = self._entries.get

    def __len__(self) -> int:
        return len(self._entries)

    def keep(self, key: K, value: V) -> None:
        """Cache a value as the newest; a full cache drops its oldest entry."""
        with self._lock:
            keep_newest(self._entries, key, value, self._capacity)

    def drop(self, is_stale: Callable[[V], bool]) -> None:
        """Drop the entries whose values are stale."""
        with self._lock:
            for key, value in list(self._entries.items()):
                if is_stale(value):
                    del self._entries[key]

    def clear(self) -> None:
        """Drop all entries."""
        with self._lock:
            self._entries.clear()


def keep_newest(entries: OrderedDict[K, V], key: K, value: V, capacity: int) -> tuple[K, V] | None:
    """Set an entry as the newest, and drop the oldest if there would be too many.

    For caches whose lock protects more than one dictionary; the caller holds that lock. There are
    never more than `capacity` entries, not even for a moment: a fork may copy that moment.

    Returns:
        The key and value of the dropped entry; `None` if there was room.
    """
    dropped = None
    if key in entries:
        entries.move_to_end(key)
    elif len(entries) >= capacity:
        dropped = entries.popitem(last=False)
    entries[key] = value
    return dropped
