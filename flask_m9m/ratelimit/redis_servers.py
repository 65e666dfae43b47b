"""Redis topologies: a single server, a master behind Sentinel, and Redis Cluster."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from binascii import crc_hqx
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from ..processes.forking import fork_safe_lock, watch
from ..settings.redis_url import Address, RedisURL, read_url
from .redis_pool import (
    Connection,
    Pool,
    connect_to,
    connection_options,
    error_code,
    failure,
    load_redis,
    packed,
)
from .store import StoreFailure

_SLOTS = 16_384
_SENTINEL_SECONDS = 0.5
_ASKING = packed(b"ASKING")
_REDIRECTION = re.compile(r"\d+ (\S*):(\d{1,5})\Z", re.ASCII)


class Command(NamedTuple):
    """A packed command, and the key that selects its server."""

    key: bytes
    packed: bytes


class Servers(ABC):
    """Redis servers that together store one set of keys."""

    @abstractmethod
    def ask(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Send commands, in one round trip to each server, and return the answers in order.

        An error answer is returned as redis-py's exception, not raised.

        Raises:
            StoreFailure: not all answers arrived in time.
        """

    @abstractmethod
    def masters(self, deadline: float) -> list[Pool]:
        """Return the servers that together store all keys.

        Raises:
            StoreFailure: no server told in time which they are.
        """


def open_servers(url: str) -> Servers:
    """Return the servers that a URL names; nothing is sent yet.

    Raises:
        ValueError: the URL has no known form.
        ModuleNotFoundError: redis-py is not installed.
    """
    parsed = read_url(url)
    load_redis()
    if parsed.kind == "cluster":
        return _Cluster(parsed)
    if parsed.kind == "sentinel":
        return _SingleServer(Pool(_Sentinels(parsed).connect))
    address = parsed.addresses[0] if parsed.addresses else None
    return _SingleServer(Pool(partial(connect_to, parsed, address)))


class _SingleServer(Servers):
    """One server, possibly the master that sentinels name."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def ask(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        return self._pool.exchange([command.packed for command in commands], deadline)

    def masters(self, deadline: float) -> list[Pool]:
        return [self._pool]


class _Sentinels:
    """Asks sentinels for the master before each new connection to it."""

    def __init__(self, url: RedisURL) -> None:
        self._url = url
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """Forget the parent's connections to the sentinels."""
        self._sentinel: Any = None

    def connect(self) -> Connection:
        """Connect to the master."""
        if self._sentinel is None:
            self._sentinel = self._make_sentinel()
        host, port = self._sentinel.discover_master(self._url.service)
        return connect_to(self._url, (host, port))

    def _make_sentinel(self) -> Any:
        retry = import_module("redis.retry").Retry(import_module("redis.backoff").NoBackoff(), 0)
        options = connection_options(self._url, self._url.sentinel_login) | {
            "socket_timeout": _SENTINEL_SECONDS,
            "socket_connect_timeout": _SENTINEL_SECONDS,
            "retry": retry,
            "ssl": self._url.tls,
        }
        return import_module("redis.sentinel").Sentinel(
            self._url.addresses, sentinel_kwargs=options
        )


class _Cluster(Servers):
    """A Redis Cluster; its map of slots is read at the first call and after each failure."""

    def __init__(self, url: RedisURL) -> None:
        self._url = url
        self._seeds = list(url.addresses)
        self._pools: dict[Address, Pool] = {}
        self._map: list[Address | None] = []
        self._stale = True
        self._lock = fork_safe_lock()

    def ask(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        try:
            return self._ask(commands, deadline)
        except StoreFailure:
            self._stale = True
            raise

    def masters(self, deadline: float) -> list[Pool]:
        self._stale = True
        slots = self._slots(deadline)
        return [self._pool(address) for address in sorted({master for master in slots if master})]

    def _ask(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        slots = self._slots(deadline)
        answers: list[Any] = [None] * len(commands)
        places: dict[Address, list[int]] = {}
        for place, command in enumerate(commands):
            address = slots[key_slot(command.key)]
            if address is None:
                raise StoreFailure("Redis cannot be used: no server of the cluster serves the slot")
            places.setdefault(address, []).append(place)
        for address, own in places.items():
            pool = self._pool(address)
            got = pool.exchange([commands[place].packed for place in own], deadline)
            for place, answer in zip(own, got, strict=True):
                answers[place] = self._follow(commands[place], address, answer, deadline)
        return answers

    def _follow(self, command: Command, asked: Address, answer: Any, deadline: float) -> Any:
        """Follow a redirection, once."""
        code = error_code(answer)
        if code not in ("MOVED", "ASK"):
            self._stale |= code in ("CLUSTERDOWN", "MASTERDOWN", "READONLY")
            return answer
        target = _REDIRECTION.search(str(answer))
        if target is None:
            return answer
        address = (target[1] or asked[0], int(target[2]))
        if code == "ASK":
            return self._pool(address).exchange([_ASKING, command.packed], deadline)[1]
        with self._lock:
            if self._map:
                self._map[key_slot(command.key)] = address
        return self._pool(address).exchange([command.packed], deadline)[0]

    def _pool(self, address: Address) -> Pool:
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools.setdefault(address, Pool(partial(connect_to, self._url, address)))
        return pool

    def _slots(self, deadline: float) -> list[Address | None]:
        if not self._stale:
            return self._map
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StoreFailure("Redis cannot be used: reading the map of slots takes too long")
        try:
            if self._stale:
                self._map = self._read_map(deadline)
                self._stale = False
            return self._map
        finally:
            self._lock.release()

    def _read_map(self, deadline: float) -> list[Address | None]:
        """Read the map from the first server that answers; ask servers that failed last."""
        reason = "no server"
        for address in list(self._seeds):
            try:
                command = packed(b"CLUSTER", b"SLOTS")
                [answer] = self._pool(address).exchange([command], deadline)
                if isinstance(answer, Exception):
                    raise failure(answer)
                slots = _read_slots(answer, address)
            except StoreFailure as error:
                self._seeds.remove(address)
                self._seeds.append(address)
                reason = str(error)
                if time.monotonic() >= deadline:
                    break
            else:
                self._update_servers(slots)
                return slots
        raise StoreFailure(reason)

    def _update_servers(self, slots: list[Address | None]) -> None:
        """Ask the map's servers next time, then those that the URL names."""
        found = {address for address in slots if address is not None}
        known = [address for address in self._seeds if address in found]
        self._seeds = list(dict.fromkeys([*known, *sorted(found), *self._url.addresses]))
        self._pools = {
            address: pool for address, pool in self._pools.items() if address in self._seeds
        }


def key_slot(key: bytes) -> int:
    """Return the slot of a key with one hash tag (Redis Cluster specification, Hash tags)."""
    return crc_hqx(key[key.index(b"{") + 1 : key.index(b"}")], 0) % _SLOTS


def _read_slots(answer: Any, asked: Address) -> list[Address | None]:
    """Parse the answer to `CLUSTER SLOTS`: ranges, each with its master first."""
    slots: list[Address | None] = [None] * _SLOTS
    try:
        for first, last, master, *_ in answer:
            host = (master[0] or b"").decode()
            address = (asked[0] if host in ("", "?") else host, int(master[1]))
            if not 0 <= first <= last < _SLOTS:
                raise ValueError
            slots[first : last + 1] = [address] * (last + 1 - first)
    except (TypeError, ValueError, AttributeError, IndexError):
        raise StoreFailure("Redis cannot be used: its map of slots is damaged") from None
    return slots
