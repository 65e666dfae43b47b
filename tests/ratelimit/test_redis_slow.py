"""Redis that answers slowly, and a process that comes late to read what Redis answered in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from flask_m9m.ratelimit import MemoryStore, RateLimit, StoreFailure
from flask_m9m.ratelimit.failover import Breaker, Failover
from flask_m9m.ratelimit.redis_pool import packed
from flask_m9m.ratelimit.redis_store import RedisStore
from tests.ratelimit.failing import KEY
from tests.redis_servers import RedisServer, until

LIMIT = RateLimit(1, 3_600, 1_000)

pytestmark = pytest.mark.usefixtures("patient")


class Relay:
    """Stands before a server and delays its answers."""

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        self.answers = 0
        self._port = port
        self._front = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._front.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                outside, _ = self._front.accept()
                threading.Thread(target=self._pass_on, args=(outside,), daemon=True).start()

    def _pass_on(self, outside: socket.socket) -> None:
        with (
            suppress(OSError),
            outside,
            socket.create_connection(("127.0.0.1", self._port)) as inside,
        ):
            while message := outside.recv(65_536):
                inside.sendall(message)
                answer = inside.recv(65_536)
                time.sleep(self.delay)
                self.answers += 1
                outside.sendall(answer)

    def close(self) -> None:
        self._front.shutdown(socket.SHUT_RDWR)
        self._front.close()


@contextmanager
def relayed(server: RedisServer) -> Iterator[Relay]:
    relay = Relay(server.port)
    try:
        yield relay
    finally:
        relay.close()


def hit(store: Failover, client: str = "client") -> bool:
    try:
        return store.hit(LIMIT, client).admitted
    except StoreFailure:
        return False


def test_a_breaker_that_opens_because_redis_is_slow_says_so_and_says_when_it_is_back(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with relayed(redis_server) as relay:
        breaker = Breaker(probe_every=0.3)
        store = Failover(
            RedisStore(relay.url, KEY, "app"), MemoryStore(), "closed", breaker=breaker
        )
        assert hit(store)
        relay.delay = 0.095
        answers = [hit(store) for _ in range(1_000)]
        assert answers.count(False) > 900
        assert 1 <= store.failures <= 10
        assert [line for line in caplog.messages if "fails" in line] == [
            "rate limits: the store fails, so requests are refused: it answers too slowly "
            "(1 failures so far)"
        ]
        relay.delay = 0.0
        assert until(lambda: hit(store))
        assert caplog.messages[-1] == "rate limits: the store works again"


def test_a_refusal_that_is_repeated_here_does_not_say_that_redis_is_back(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = Failover(
        RedisStore(redis_server.url, KEY, "app"),
        MemoryStore(),
        "local",
        breaker=Breaker(probe_every=0.0),  # each request asks
    )
    store.hit(LIMIT, "spent", LIMIT.burst)
    assert not hit(store, "spent")
    redis_server.kill()
    assert hit(store, "other")
    assert not hit(store, "spent")  # known for a second without Redis
    assert not any("works again" in line for line in caplog.messages)


def test_an_answer_that_came_in_time_is_read_however_late(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, KEY, "app")
    store.hit(LIMIT, "client")
    pool = store._servers._pool  # type: ignore[attr-defined]
    store.was_slow()
    assert pool.exchange([packed(b"PING")] * 3, time.monotonic() - 1.0) == [b"PONG"] * 3
    assert store.was_slow() is False
    assert store.was_slow() is None
