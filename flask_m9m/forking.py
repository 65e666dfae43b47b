"""What a child process has to begin anew: locks, and connections that are its parent's."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that does not survive a fork as it is."""

    def after_fork(self) -> None:
        """Begin anew, in the child."""
        ...


class Locked(Protocol):
    """Something with one lock."""

    _lock: threading.Lock


_watched: weakref.WeakSet[Forked] = weakref.WeakSet()
_locked: weakref.WeakSet[Locked] = weakref.WeakSet()


def watch(forked: Forked) -> None:
    """Have `after_fork` called in every child process, where all locks are free by then."""
    _watched.add(forked)


def lock(owner: Locked) -> threading.Lock:
    """Return a lock for `owner._lock`; a child process finds another one there, which is free.

    A thread that held it in the parent is not there to release it in the child.
    """
    _locked.add(owner)
    return threading.Lock()


def _in_child() -> None:
    for owner in list(_locked):
        owner._lock = threading.Lock()
    for forked in list(_watched):
        forked.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
