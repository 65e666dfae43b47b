"""Which store of rate limits an app has, as its settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from ..settings import RateLimitSettings
from .failover import Failover
from .memory import MemoryStore
from .store import LimitStore

logger = logging.getLogger("flask_m9m")


class LimitStores(NamedTuple):
    """Where an app counts.

    Attributes:
        limits: requests.
        attempts: failed attempts at credentials, which never go uncounted.
    """

    limits: LimitStore
    attempts: LimitStore


def limit_stores(
    settings: RateLimitSettings,
    app: tuple[str, str],
    *,
    private: bool,
    clock: Callable[[], float],
) -> LimitStores:
    """Make the stores that `performance.rate_limit` names; nothing is opened yet.

    Args:
        settings: the app's.
        app: what tells the app from others: its import name and instance path.
        private: whether this object of an app is to have counts of its own, as in a test.
        clock: seconds of a clock that never steps back, for what one process counts.
    """
    memory = MemoryStore(clock=clock)
    if settings.storage == "memory" or private:
        return LimitStores(memory, memory)
    shared = _shared(settings, app)
    if shared is None:
        return LimitStores(memory, memory)
    return LimitStores(
        Failover(shared, memory, settings.on_storage_failure), Failover(shared, memory, "local")
    )


def _shared(settings: RateLimitSettings, app: tuple[str, str]) -> LimitStore | None:
    try:
        from .directory import Directory
        from .shared import SharedStore
    except ImportError:  # no fcntl
        logger.warning(
            "performance.rate_limit.storage: this system has no locks that processes share; "
            "rate limits are kept in the memory of each process"
        )
        return None
    return SharedStore(Directory(settings.path, app))
