"""Makes an app's stores of rate limits from its settings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ..errors import Problem, SettingsError
from ..settings.models import RateLimitSettings
from .failover import Breaker, Failover
from .memory import MemoryStore
from .store import LimitStore

logger = logging.getLogger("flask_m9m")


class LimitStores(NamedTuple):
    """An app's stores.

    Attributes:
        limits: counts requests.
        attempts: counts failed attempts at credentials, even while the store fails.
    """

    limits: LimitStore
    attempts: LimitStore


def limit_stores(
    settings: RateLimitSettings,
    app: tuple[str, str],
    *,
    key: bytes,
    private: bool,
    clock: Callable[[], float],
) -> LimitStores:
    """Make the stores that `performance.rate_limit` names; nothing is opened yet.

    Args:
        settings: the app's `performance.rate_limit`.
        app: identifies the app: its import name and instance path.
        key: the key that hashes clients' names in Redis, the same on all machines; empty if there
            is no secret.
        private: whether this app object counts alone, as in a test; Redis is used anyway.
        clock: a monotonic clock, in seconds, for counts in memory.

    Raises:
        SettingsError: the settings name Redis, and redis-py is not installed.
    """
    memory = MemoryStore(clock=clock)
    local = LimitStores(memory, memory)
    if settings.storage != "memory" and not private:
        local = _machine(settings, app) or local
    if settings.storage == "redis":
        if not key:
            logger.warning(
                "performance.rate_limit.secret is not set, nor is any other secret: whoever reads "
                "Redis can guess clients' addresses from its keys (make one with: flask m9m "
                "secret; all machines need the same)"
            )
        redis, attempts = (_redis(settings, app[0], key, lease) for lease in (settings.lease, 1))
        limits_here, attempts_here = (
            store if store is memory else Failover(store, memory, "local") for store in local
        )
        failover = partial(Failover, machines=settings.machines, breaker=Breaker())
        return LimitStores(
            failover(redis, limits_here, settings.on_storage_failure),
            failover(attempts, attempts_here, "local"),
        )
    if local.limits is memory:
        return local
    return LimitStores(
        Failover(local.limits, memory, settings.on_storage_failure),
        Failover(local.attempts, memory, "local"),
    )


def _machine(settings: RateLimitSettings, app: tuple[str, str]) -> LimitStores | None:
    try:
        from ..processes.shared_directory import SharedDirectory
        from .shared import SharedStore
    except ImportError:  # no fcntl
        logger.warning(
            "performance.rate_limit: this system has no file locks (fcntl); rate limits are "
            "counted %s",
            MemoryStore.where,
        )
        return None
    try:
        directory = SharedDirectory(settings.path, app)
    except OSError as error:  # no directory for temporary files
        logger.warning(
            "performance.rate_limit: %s; rate limits are counted %s", error, MemoryStore.where
        )
        return None
    # Each store opens so many files at most: however many limits the app uses, those of failed
    # attempts have a store, and so a place, of their own.
    return LimitStores(SharedStore(directory), SharedStore(directory))


def _redis(settings: RateLimitSettings, app: str, key: bytes, lease: int) -> LimitStore:
    from .redis_store import RedisStore

    assert settings.redis_url is not None  # noqa: S101  # the settings have been checked
    try:
        return RedisStore(settings.redis_url.get_secret_value(), key, app, lease)
    except ModuleNotFoundError:
        accepted = "shared, memory, or redis after pip install 'flask-m9m[redis]'"
        found = "redis, and redis-py is not installed"
        raise SettingsError([Problem("performance.rate_limit.storage", found, accepted)]) from None
