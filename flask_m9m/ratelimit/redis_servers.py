"""Which Redis server is asked: the only one, the one that sentinels name, the one with the slot."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from binascii import crc_hqx
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from .. import forking
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
    """A packed command, and the key whose server it is for."""

    key: bytes
    packed: bytes


class Servers(ABC):
    """Redis servers that hold one set of keys between them."""

    @abstractmethod
    def ask(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Send commands, in one round trip to each server, and return the answers in order.

        What redis-py makes of an error that a server answers is among them.

        Raises:
            StoreFailure: not all answers came in time.
        """

    @abstractmethod
    def masters(self, deadline: float) -> list[Pool]:
        """Return the servers that hold all keys.

        Raises:
            StoreFailure: nobody could say in time which they are.
        """


def open_servers(url: str) -> Servers:
    """Return the servers that a URL names; none is asked anything yet.

    Raises:
        ValueError: the URL is of no known form.
        ModuleNotFoundError: redis-py is not installed.
    """
    where = read_url(url)
    load_redis()
    if where.kind == "cluster":
        return _Cluster(where)
    if where.kind == "sentinel":
        return _One(Pool(_Sentinels(where).connect))
    return _One(Pool(partial(connect_to, where, where.addresses[0] if where.addresses else None)))


class _One(Servers):
    """One server, be it the one that sentinels say is the master."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def ask(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        return self._pool.exchange([command.packed for command in commands], deadline)

    def masters(self, deadline: float) -> list[Pool]:
        return [self._pool]


class _Sentinels:
    """Asks sentinels for the master, each time there is to be a connection to it."""

    def __init__(self, url: RedisURL) -> None:
        self._url = url
        self.after_fork()
        forking.watch(self)

    def after_fork(self) -> None:
        """Forget the parent's connections to the sentinels."""
        self._sentinel: Any = None

    def connect(self) -> Connection:
        """Connect to the master."""
        if self._sentinel is None:
            self._sentinel = self._ask_them()
        host, port = self._sentinel.discover_master(self._url.service)
        return connect_to(self._url, (host, port))

    def _ask_them(self) -> Any:
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
    """A map of the cluster's slots, read when a call first needs it and after each failure."""

    def __init__(self, url: RedisURL) -> None:
        self._url = url
        self._seeds = list(url.addresses)
        self._pools: dict[Address, Pool] = {}
        self._map: list[Address | None] = []
        self._stale = True
        self._lock = forking.lock(self)

    def ask(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        try:
            return self._ask(commands, deadline)
        except StoreFailure:
            self._stale = True
            raise

    def masters(self, deadline: float) -> list[Pool]:
        self._stale = True
        slots = self._slots(deadline)
        return [self._pool(address) for address in sorted({one for one in slots if one})]

    def _ask(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        slots = self._slots(deadline)
        answers: list[Any] = [None] * len(commands)
        places: dict[Address, list[int]] = {}
        for place, command in enumerate(commands):
            address = slots[key_slot(command.key)]
            if address is None:
                raise StoreFailure("Redis cannot be used: no server has the slot")
            places.setdefault(address, []).append(place)
        for address, own in places.items():
            pool = self._pool(address)
            got = pool.exchange([commands[place].packed for place in own], deadline)
            for place, answer in zip(own, got, strict=True):
                answers[place] = self._follow(commands[place], address, answer, deadline)
        return answers

    def _follow(self, command: Command, asked: Address, answer: Any, deadline: float) -> Any:
        """Ask where an answer says to ask, once."""
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
            raise StoreFailure("Redis cannot be used: nobody says in time which server has a slot")
        try:
            if self._stale:
                self._map = self._read_map(deadline)
                self._stale = False
            return self._map
        finally:
            self._lock.release()

    def _read_map(self, deadline: float) -> list[Address | None]:
        """Ask one server after another, those that failed last."""
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
                self._know(slots)
                return slots
        raise StoreFailure(reason)

    def _know(self, slots: list[Address | None]) -> None:
        """Ask the map's servers next time, and then those that the URL names."""
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
    """Read what `CLUSTER SLOTS` answers: ranges, each with its master first."""
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
