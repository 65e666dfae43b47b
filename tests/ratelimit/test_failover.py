from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

import pytest

from flask_m9m.ratelimit import Hit, LimitStore, MemoryStore, RateLimit, StoreFailure, Want
from flask_m9m.ratelimit.failover import Breaker, Failover, share_of
from flask_m9m.ratelimit.redis_pool import SLOW_SECONDS
from flask_m9m.ratelimit.store import Spender
from flask_m9m.testing import Clock

LIMIT = RateLimit(60, 60, 4)


class Flaky(LimitStore):
    """A store that fails when it is told to, or takes its time."""

    where = "in tests"

    def __init__(self, clock: Clock) -> None:
        self.within = MemoryStore(clock=clock)
        self.clock = clock
        self.failure: StoreFailure | None = None
        self.takes = 0.0
        self.asked = 0

    def was_slow(self) -> bool:
        return self.takes > SLOW_SECONDS

    def _ask(self) -> None:
        self.asked += 1
        self.clock.advance(self.takes)
        if self.failure is not None:
            raise self.failure

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        self._ask()
        return self.within.hit(limit, client, cost)

    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        self._ask()
        self.within.refund(limit, client, cost)

    def peek(self, limit: RateLimit, client: str) -> Hit:
        return self.within.peek(limit, client)

    def reset(self, limit: RateLimit, client: str) -> None:
        self.within.reset(limit, client)

    def client_id(self, limit: RateLimit, client: str) -> str:
        return self.within.client_id(limit, client)

    def spenders(self) -> Iterator[Spender]:
        return self.within.spenders()


@pytest.fixture
def flaky(clock: Clock) -> Flaky:
    return Flaky(clock)


def failover(
    flaky: Flaky, policy: Literal["local", "closed", "open"] = "local", machines: int = 1
) -> Failover:
    clock = flaky.clock
    memory, breaker = MemoryStore(clock=clock), Breaker(2.0, clock)
    return Failover(flaky, memory, policy, machines=machines, breaker=breaker, clock=clock)


def admitted(store: LimitStore, attempts: int = 10) -> int:
    return sum(store.hit(LIMIT, "a").admitted for _ in range(attempts))


def test_while_it_works_nothing_else_is_asked(flaky: Flaky) -> None:
    store = failover(flaky)
    assert admitted(store) == 4
    assert flaky.asked == 10
    assert store.failures == 0


def test_local_gives_the_machine_its_share_and_remembers_it_between_failures(flaky: Flaky) -> None:
    store = failover(flaky, machines=2)
    flaky.failure = StoreFailure("gone")
    assert admitted(store) == 2
    flaky.clock.advance(2.0)
    flaky.failure = None
    assert admitted(store) == 4
    flaky.failure = StoreFailure("gone again")
    assert admitted(store) == 1  # the two seconds' share


def test_closed_lets_the_failure_go_on_and_does_not_ask_again_soon(flaky: Flaky) -> None:
    store = failover(flaky, "closed")
    flaky.failure = StoreFailure("gone")
    for _ in range(5):
        with pytest.raises(StoreFailure):
            store.hit(LIMIT, "a")
        with pytest.raises(StoreFailure):
            store.hit_all([Want(LIMIT, "a")])
    assert flaky.asked == 1


def test_open_lets_everything_pass_and_says_nothing_untrue(flaky: Flaky) -> None:
    store = failover(flaky, "open")
    flaky.failure = StoreFailure("gone")
    assert admitted(store) == 10
    assert store.hit(LIMIT, "a").remaining == LIMIT.burst
    assert [hit.admitted for hit in store.hit_all([Want(LIMIT, "a"), Want(LIMIT, "b")])] == [
        True,
        True,
    ]


@pytest.mark.parametrize("policy", ["local", "closed", "open"])
def test_what_somebody_else_planted_closes_whatever_the_policy(
    flaky: Flaky, policy: Literal["local", "closed", "open"]
) -> None:
    store = failover(flaky, policy)
    store._breaker = None  # as for the files, which cost no time
    flaky.failure = StoreFailure("another's file", unsafe=True)
    for _ in range(3):
        with pytest.raises(StoreFailure, match="another's"):
            store.hit(LIMIT, "a")
        with pytest.raises(StoreFailure, match="another's"):
            store.hit_all([Want(LIMIT, "a")])


def test_one_request_every_two_seconds_tries_again_and_finds_it_back(flaky: Flaky) -> None:
    store = failover(flaky)
    flaky.failure = StoreFailure("gone")
    for _ in range(100):
        store.hit(LIMIT, "a")
        flaky.clock.advance(0.1)
    assert 5 <= flaky.asked <= 6
    flaky.failure = None
    flaky.clock.advance(2.0)
    before = flaky.asked
    assert admitted(store) == 4
    assert flaky.asked == before + 10


def test_a_hundred_threads_send_one_probe(flaky: Flaky) -> None:
    store = failover(flaky)
    flaky.failure = StoreFailure("gone")
    store.hit(LIMIT, "a")
    flaky.clock.advance(2.0)
    threads = [threading.Thread(target=store.hit, args=(LIMIT, "a")) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert flaky.asked == 2


def test_two_slow_answers_running_count_as_a_failure(flaky: Flaky) -> None:
    store = failover(flaky)
    flaky.takes = SLOW_SECONDS + 0.01
    for _ in range(10):
        store.hit(LIMIT, "a")
    assert flaky.asked == 2
    flaky.clock.advance(2.0)
    store.hit(LIMIT, "a")  # still slow
    store.hit(LIMIT, "a")
    assert flaky.asked == 3
    flaky.takes = 0.0
    flaky.clock.advance(2.0)
    for _ in range(4):
        store.hit(LIMIT, "a")
    assert flaky.asked == 7


def test_one_slow_answer_now_and_then_is_nothing(flaky: Flaky) -> None:
    store = failover(flaky)
    for number in range(20):
        flaky.takes = 0.0 if number % 2 else SLOW_SECONDS + 0.01
        store.hit(LIMIT, "a")
    assert flaky.asked == 20


def test_one_line_per_interval_tells_of_failures_and_one_of_the_end(
    flaky: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    store = failover(flaky)
    flaky.failure = StoreFailure("connection refused")
    for _ in range(290):
        store.hit(LIMIT, "203.0.113.7")
        flaky.clock.advance(0.1)
    assert len(caplog.messages) == 1
    assert "this machine or process counts alone" in caplog.text
    assert "connection refused" in caplog.text
    assert "203.0.113.7" not in caplog.text
    flaky.clock.advance(2.0)
    store.hit(LIMIT, "a")
    assert len(caplog.messages) == 2
    assert f"{store.failures} failures so far" in caplog.messages[1]
    assert store.failures == flaky.asked
    flaky.failure = None
    flaky.clock.advance(2.0)
    store.hit(LIMIT, "a")
    assert "the store works again" in caplog.messages[2]
    assert {one.levelno for one in caplog.records} == {logging.WARNING}


@pytest.mark.parametrize("policy", ["local", "closed", "open"])
def test_a_refund_never_fails(flaky: Flaky, policy: Literal["local", "closed", "open"]) -> None:
    store = failover(flaky, policy)
    store.hit(LIMIT, "a")
    flaky.failure = StoreFailure("gone")
    store.refund(LIMIT, "a")
    store.refund(LIMIT, "a")
    assert flaky.asked == 2


def test_tokens_taken_locally_are_given_back_locally(flaky: Flaky) -> None:
    store = failover(flaky)
    flaky.failure = StoreFailure("gone")
    assert admitted(store) == 4
    store.refund(LIMIT, "a")
    assert admitted(store) == 1


def test_a_request_dearer_than_a_machines_burst_costs_all_of_it(flaky: Flaky) -> None:
    store = failover(flaky, machines=4)
    flaky.failure = StoreFailure("gone")
    assert store.hit(LIMIT, "a", 3).admitted
    assert not store.hit(LIMIT, "a", 1).admitted


def test_several_limits_are_kept_locally_too(flaky: Flaky) -> None:
    store, tight = failover(flaky), RateLimit(60, 60, 1, "tight")
    flaky.failure = StoreFailure("gone")
    hits = [store.hit_all([Want(LIMIT, "a"), Want(tight, "a")]) for _ in range(3)]
    assert [all(hit.admitted for hit in one) for one in hits] == [True, False, False]
    assert store.hit(LIMIT, "a").remaining == 2  # the refused ones took nothing here


@pytest.mark.parametrize(
    ("limit", "machines", "share"),
    [
        (RateLimit(60, 60, 10), 1, (60, 60, 10)),
        (RateLimit(60, 60, 10), 3, (20, 60, 3)),
        (RateLimit(10, 60, 10), 3, (10, 180, 3)),
        (RateLimit(1, 60, 1), 1_000, (1, 60_000, 1)),
    ],
)
def test_shares_add_up_to_no_more_than_the_limit(
    limit: RateLimit, machines: int, share: tuple[int, int, int]
) -> None:
    found = share_of(limit, machines)
    assert (found.count, found.period, found.burst) == share
    assert found.count / found.period * machines <= limit.count / limit.period
    assert (found.name, found.scope) == (limit.name, limit.scope)


def test_without_a_breaker_every_request_asks(flaky: Flaky) -> None:
    store = Failover(flaky, MemoryStore(clock=flaky.clock), "local", clock=flaky.clock)
    flaky.failure = StoreFailure("locked")
    assert admitted(store) == 4
    assert [hit.admitted for hit in store.hit_all([Want(LIMIT, "b"), Want(LIMIT, "c")])] == [
        True,
        True,
    ]
    store.refund(LIMIT, "a")
    assert store.failures == flaky.asked == 12
    flaky.failure = None
    assert admitted(store) == 4


@pytest.mark.parametrize("policy", ["local", "closed", "open"])
def test_a_store_that_is_only_slow_is_logged_and_counted_like_one_that_fails(
    flaky: Flaky, caplog: pytest.LogCaptureFixture, policy: Literal["local", "closed", "open"]
) -> None:
    store = failover(flaky, policy)
    flaky.takes = 0.095
    for _ in range(1_000):
        with suppress(StoreFailure):
            store.hit(LIMIT, "a")
        flaky.clock.advance(0.001)
    assert store.failures == 1
    assert len(caplog.messages) == 1
    assert "it answers too slowly" in caplog.text
    flaky.clock.advance(2.0)
    store.hit(LIMIT, "a")  # a probe, slow as well
    assert store.failures == 2
    flaky.takes = 0.0
    flaky.clock.advance(2.0)
    store.hit(LIMIT, "a")
    assert caplog.messages[1:] == ["rate limits: the store works again"]


def test_whoever_finds_the_store_working_says_so_once(
    flaky: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    clock, breaker = flaky.clock, Breaker(2.0, flaky.clock)
    memory = MemoryStore(clock=clock)
    limits, attempts = (
        Failover(flaky, memory, policy, breaker=breaker, clock=clock)
        for policy in ("closed", "local")
    )
    flaky.failure = StoreFailure("gone")
    with suppress(StoreFailure):
        limits.hit(LIMIT, "a")
    flaky.failure = None
    clock.advance(2.0)
    attempts.hit(LIMIT, "a")
    limits.hit(LIMIT, "a")
    assert len(caplog.messages) == 2
    assert caplog.messages[1] == "rate limits: the store works again"


@pytest.mark.parametrize("operation", ["hit", "refund", "hit_all"])
def test_a_store_without_a_breaker_says_when_it_is_back(
    flaky: Flaky, caplog: pytest.LogCaptureFixture, operation: str
) -> None:
    store = Failover(flaky, MemoryStore(clock=flaky.clock), "local", clock=flaky.clock)
    arguments = ([Want(LIMIT, "a")],) if operation == "hit_all" else (LIMIT, "a")
    for failure in (None, StoreFailure("locked"), None, None):
        flaky.failure = failure
        getattr(store, operation)(*arguments)
    assert len(caplog.messages) == 2
    assert caplog.messages[1] == "rate limits: the store works again"
