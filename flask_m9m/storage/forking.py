"""What a child process has to begin anew: locks, and connections that are its parent's."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that does not survive a fork as it is."""

    def after_fork(self) -> None:
        """Begin anew, in the child."""
        ...


_watched: weakref.WeakSet[Forked] = weakref.WeakSet()


def watch(forked: Forked) -> None:
    """Have `after_fork` called in every child process."""
    _watched.add(forked)


def _in_child() -> None:
    for forked in list(_watched):
        forked.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
