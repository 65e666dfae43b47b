"""Forking: locks that are free in a child process, and objects that a child must renew."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forked(Protocol):
    """An object that must be renewed after a fork."""

    def after_fork(self) -> None:
        """Renew the object in the child process."""
        ...


_watched: weakref.WeakSet[Forked] = weakref.WeakSet()
_locks: weakref.WeakSet[threading.Lock] = weakref.WeakSet()


def watch(forked: Forked) -> None:
    """Register an object: every child process calls its `after_fork`, once all locks are free."""
    _watched.add(forked)


def fork_safe_lock() -> threading.Lock:
    """Make a lock that is free in every child process.

    A thread that holds it in the parent does not exist in the child, and cannot release it there.
    """
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def _renew_in_child() -> None:
    for lock in list(_locks):
        # As the standard library does for its own locks; the type stubs leave it out.
        lock._at_fork_reinit()  # type: ignore[attr-defined]
    for forked in list(_watched):
        forked.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)
