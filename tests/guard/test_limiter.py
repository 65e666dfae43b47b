from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.wrappers import Response

from flask_m9m import M9M, rate_limit
from flask_m9m.auth.identity import Identity
from flask_m9m.errors import LimitsUnavailable, M9MError, RateLimited
from flask_m9m.guard.exchange import Exchange
from flask_m9m.guard.limiter import (
    Limiter,
    ShadowRefusals,
    client_key,
    custom_key,
    identity_key,
    limited,
)
from flask_m9m.guard.marks import LimitMark
from flask_m9m.guard.policy import Level, RouteLimit
from flask_m9m.guard.policy_compiler import PolicyCompiler
from flask_m9m.http.address import Client
from flask_m9m.ratelimit.gcra import Hit
from flask_m9m.ratelimit.limit import RateLimit
from flask_m9m.ratelimit.memory import MemoryStore
from flask_m9m.ratelimit.store import StoreFailure, Want
from flask_m9m.settings.models import RateLimitSettings
from flask_m9m.testing import Clock, make_settings

ANN = Identity("ann", "bearer")


class Store(MemoryStore):
    """A store in memory that fails on demand."""

    failing = False

    def hit(self, *want: Any) -> Hit:
        if self.failing:
            raise StoreFailure("gone")
        return super().hit(*want)

    def refund(self, *want: Any) -> None:
        if self.failing:
            raise StoreFailure("gone")
        super().refund(*want)


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock=clock)


@pytest.fixture
def limiter(store: Store, clock: Clock) -> Limiter:
    return Limiter(RateLimitSettings(), store, clock)


def route_limits(*marks: LimitMark) -> tuple[RouteLimit, ...]:
    compiler = PolicyCompiler(make_settings(), ())
    return compiler.compile("report", [Level("view", marks)], "GET").limits


def limits_of(limits: Any = "3/minute", **options: Any) -> tuple[RouteLimit, ...]:
    return route_limits(LimitMark.of(limits, **options))


def request(address: str = "192.0.2.1", identity: Identity | None = None, *wants: Want) -> Exchange:
    client = Client(address, address, secure=True)
    exchange = Exchange(object(), {"REQUEST_METHOD": "GET"}, client, "id")
    exchange.identity = identity
    exchange.wants = wants
    return exchange


def statuses(
    limiter: Limiter, limits: Sequence[RouteLimit], count: int, address: str = "192.0.2.1"
) -> list[int]:
    errors = [limiter.take(request(address), limits) for _ in range(count)]
    return [200 if error is None else error.code for error in errors]


def left(store: Store, limits: Sequence[RouteLimit], address: str = "192.0.2.1") -> list[int]:
    """Return how many tokens each part of some limits has left for an address."""
    return [store.peek(part, address).remaining for limit in limits for part in limit.limits()]


# The general limit


@pytest.mark.parametrize("enabled", [True, False])
def test_the_general_limit_is_what_the_settings_say(store: Store, enabled: bool) -> None:
    settings = RateLimitSettings(enabled=enabled, requests_per_minute=30, burst=4, key="identity")
    limiter = Limiter(settings, store)
    assert limiter.general == (RateLimit(30, 60, 4) if enabled else None)
    assert limiter.default_key == "identity"


# Taking tokens


@pytest.mark.parametrize(
    "options", [{}, {"count": lambda response: True}, {"limits": lambda: "3/minute"}]
)
def test_a_burst_passes_and_the_refusal_says_when_the_next_one_does(
    limiter: Limiter, clock: Clock, options: dict[str, Any]
) -> None:
    limits = limits_of(**options)
    assert statuses(limiter, limits, 3) == [200, 200, 200]
    exchange = request()
    error = limiter.take(exchange, limits)
    assert isinstance(error, RateLimited)
    assert list(error.headers) == [("Retry-After", "20")]
    assert error.members == {"violated-policies": ["report"]}
    assert [hit.admitted for hit in exchange.hits] == [False]
    clock.advance(19.9)
    assert statuses(limiter, limits, 1) == [429]
    clock.advance(0.1)
    assert statuses(limiter, limits, 2) == [200, 429]


def test_where_nothing_is_limited_nothing_is_asked(limiter: Limiter, store: Store) -> None:
    store.failing = True
    exchange = request()
    assert limiter.take(exchange) is None
    assert limiter.take(exchange, limits_of(exempt_when=lambda: True)) is None
    assert exchange.hits == ()


@pytest.mark.parametrize("short", [0, 1, 2])
def test_a_request_takes_of_all_limits_or_of_none(
    limiter: Limiter, store: Store, short: int
) -> None:
    notations = ["5/minute", "5/minute", "5/minute"]
    notations[short] = "2/minute"
    limits = route_limits(*map(LimitMark.of, notations))
    assert statuses(limiter, limits, 6) == [200, 200, 429, 429, 429, 429]
    assert left(store, limits) == [0 if number == short else 3 for number in range(3)]


def test_the_parts_of_one_limit_are_all_or_none_too(limiter: Limiter, store: Store) -> None:
    limits = limits_of("5/minute; 2/hour")
    exchange = request()
    assert limiter.take(exchange, limits) is None
    assert [hit.limit.name for hit in exchange.hits] == ["report", "report:2"]
    assert statuses(limiter, limits, 3) == [200, 429, 429]
    assert left(store, limits) == [3, 0]


def test_what_a_request_owes_is_taken_first_and_once(limiter: Limiter, store: Store) -> None:
    own = Want(RateLimit(1, 60, 1, "key"), "ann")
    limits = limits_of()
    exchange = request("192.0.2.1", None, own)
    assert limiter.take(exchange, limits) is None
    assert [hit.limit.name for hit in exchange.hits] == ["key", "report"]
    assert exchange.wants == ()
    assert limiter.take(exchange, ()) is None  # it owes nothing any more
    again = request("192.0.2.1", None, own)
    error = limiter.take(again, limits)
    assert isinstance(error, RateLimited)
    assert error.members == {"violated-policies": ["key"]}
    assert left(store, limits) == [2]


def test_clients_have_a_bucket_each(limiter: Limiter) -> None:
    limits = limits_of()
    assert statuses(limiter, limits, 4, "192.0.2.1") == [200, 200, 200, 429]
    assert statuses(limiter, limits, 4, "192.0.2.2") == [200, 200, 200, 429]


@pytest.mark.parametrize("fixed", [True, False])
def test_a_cost_takes_so_many_tokens_at_once(limiter: Limiter, store: Store, fixed: bool) -> None:
    limits = limits_of("5/minute", cost=2 if fixed else lambda: 2)
    assert statuses(limiter, limits, 3) == [200, 200, 429]
    assert left(store, limits) == [1]


@pytest.mark.parametrize("cost", [0, -1, 6, True, 1.0, "1", None, 10**30])
def test_a_computed_cost_that_cannot_be_is_refused_and_nothing_is_taken(
    limiter: Limiter, store: Store, cost: Any, caplog: pytest.LogCaptureFixture
) -> None:
    limits = (*limits_of("5/minute", name="a"), *limits_of("5/minute", cost=lambda: cost))
    exchange = request()
    error = limiter.take(exchange, limits)
    assert isinstance(error, RateLimited)
    assert list(error.headers) == [("Retry-After", "60")]
    assert error.members == {"violated-policies": ["report"]}
    assert left(store, limits) == [5, 5]
    [record] = caplog.records
    assert f"the cost is {cost!a}" in record.getMessage()


def test_an_impossible_cost_is_logged_once_per_interval(
    limiter: Limiter, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limits, other = (limits_of("5/minute", cost=lambda: 9, name=name) for name in ("a", "b"))
    for _ in range(100):
        limiter.take(request(), limits)
    limiter.take(request(), other)
    clock.advance(30)
    limiter.take(request(), limits)
    assert [line.rpartition("(")[2] for line in caplog.messages] == [
        "1 times)",
        "1 times)",
        "100 times)",
    ]


def test_limits_are_computed_for_each_request(limiter: Limiter) -> None:
    notation = "1/minute"
    limits = limits_of(lambda: notation)
    assert statuses(limiter, limits, 2) == [200, 429]
    notation = "2/minute"
    assert statuses(limiter, limits, 3) == [200, 200, 429]


def test_an_exemption_is_asked_for_each_request_and_saves_the_other_callables(
    limiter: Limiter,
) -> None:
    exempt = True

    def never() -> Any:
        raise AssertionError("an exempt request is not counted")

    limits = limits_of("1/minute", exempt_when=lambda: exempt, key=never, cost=never)
    assert statuses(limiter, limits, 3) == [200, 200, 200]
    exempt = False
    with pytest.raises(AssertionError):
        limiter.take(request(), limits)


@pytest.mark.parametrize("failing", ["exempt_when", "key", "cost", "limits"])
def test_a_callable_that_raises_frees_nobody_of_what_was_owed_before_it(
    limiter: Limiter, store: Store, failing: str
) -> None:
    def fail() -> Any:
        raise ZeroDivisionError

    first = limits_of("2/minute", name="first")
    limits = (*first, *limits_of(**{"limits": "5/minute", failing: fail}))
    own = Want(RateLimit(9, 60, 9, "key"), "ann")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            limiter.take(request("192.0.2.1", None, own), limits)
    assert left(store, first) == [0]
    assert store.peek(own.limit, own.client).remaining == 7
    assert isinstance(limiter.take(request(), limits), RateLimited)


@pytest.mark.parametrize("notation", ["", "5", None, "x/minute"])
def test_what_is_no_limit_is_an_error_of_the_app_and_not_an_open_door(
    limiter: Limiter, notation: Any
) -> None:
    with pytest.raises((ValueError, TypeError)):
        limiter.take(request(), limits_of(lambda: notation))


# Stores that fail


@pytest.mark.parametrize(
    "limits",
    [limits_of(), limits_of("3/minute; 9/hour"), limits_of(cost=lambda: 1)],
    ids=["plain", "two parts", "computed"],
)
def test_a_store_that_fails_refuses_with_503(
    limiter: Limiter, store: Store, limits: Sequence[RouteLimit]
) -> None:
    store.failing = True
    exchange = request()
    error = limiter.take(exchange, limits)
    assert isinstance(error, LimitsUnavailable)
    assert error.code == 503
    assert dict(error.headers)["Retry-After"]
    assert exchange.hits == ()


# Whose tokens


@pytest.mark.parametrize("default", ["address", "identity"])
@pytest.mark.parametrize("key", [None, "address", "identity"])
def test_a_limit_that_does_not_say_whose_it_is_is_as_the_settings_say(
    store: Store, default: str, key: Any
) -> None:
    settings = RateLimitSettings(key=default)  # type: ignore[arg-type]
    limits = limits_of("1/minute", key=key)
    limiter = Limiter(settings, store)
    assert limiter.take(request("192.0.2.1", ANN), limits) is None
    same_caller = limiter.take(request("192.0.2.2", ANN), limits)
    same_address = limiter.take(request("192.0.2.1", Identity("bob", "bearer")), limits)
    by_identity = (key or default) == "identity"
    assert (same_caller is not None) is by_identity
    assert (same_address is None) is by_identity


def test_without_an_identity_the_address_counts() -> None:
    assert client_key(request("192.0.2.1", ANN), "identity") == "identity:ann"
    assert client_key(request("192.0.2.1", ANN), "address") == "192.0.2.1"
    assert client_key(request("192.0.2.1"), "identity") == "192.0.2.1"


def test_a_callable_chooses_whose_tokens_they_are_and_none_is_the_address(
    limiter: Limiter,
) -> None:
    chosen: Any = "a"
    limits = limits_of("1/minute", key=lambda: chosen)
    assert statuses(limiter, limits, 2) == [200, 429]
    chosen = "b"
    assert statuses(limiter, limits, 2) == [200, 429]
    chosen = None
    assert statuses(limiter, limits, 2) == [200, 429]
    assert statuses(limiter, limits, 2, "192.0.2.2") == [200, 429]


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


@given(st.text(st.characters(), max_size=200) | st.binary(max_size=200) | st.integers())
def test_any_key_is_short_and_can_be_written_down_and_no_identitys(chosen: object) -> None:
    key = custom_key(chosen)
    assert len(key.encode()) <= len("custom:") + 4 * 64
    assert key == custom_key(chosen)
    assert key != identity_key(str(chosen))


@pytest.mark.parametrize(
    ("chosen", "same", "other"),
    [
        ("a", b"a", "b"),
        ("\xff", b"\xff", "\xfe"),
        (7, "7", 8),
        ("a" * 65, "a" * 65, "a" * 66),
        ("\ud800", "\ud800", "\ud801"),
        (Unprintable(), "Unprintable", "x"),
        (10**5000, 10**5001, 1),
    ],
    ids=range(7),
)
def test_keys_of_one_text_are_one_client_and_others_are_others(
    chosen: object, same: object, other: object
) -> None:
    assert custom_key(chosen) == custom_key(same)
    assert custom_key(chosen) != custom_key(other)


# Settling


def answered(status: int) -> Response:
    return Response(status=status)


def only_failures(response: Any) -> bool:
    return bool(response.status_code >= 400)


@pytest.mark.parametrize("notation", ["3/minute", "3/minute; 3/hour"])
def test_what_does_not_count_is_given_back_whole_and_once(
    limiter: Limiter, store: Store, notation: str
) -> None:
    limits = limits_of(notation, cost=2, count=only_failures)
    exchange = request()
    assert limiter.take(exchange, limits) is None
    parts = len(exchange.hits)
    assert left(store, limits) == [1] * parts
    limiter.settle(exchange, answered(200))
    assert left(store, limits) == [3] * parts
    assert [hit.remaining for hit in exchange.hits] == [3] * parts
    assert exchange.provisional == ()
    assert limiter.take(request(), limits) is None
    limiter.settle(exchange, answered(200))  # nothing is left to be given back
    assert left(store, limits) == [1] * parts


@pytest.mark.parametrize("step", [-3_600.0, 3_600.0])
def test_a_step_of_the_wall_clock_keeps_no_token_that_does_not_count(
    monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    real, ahead = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + ahead)
    app = Flask("app")
    M9M(app, settings=make_settings())

    @app.get("/")
    @rate_limit("1/hour", count=only_failures)
    def index() -> str:
        nonlocal ahead
        ahead += step
        return "ok"

    client = app.test_client()
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 200]


def test_what_counts_stays_taken(limiter: Limiter, store: Store) -> None:
    limits = limits_of("3/minute", count=only_failures)
    exchange = request()
    limiter.take(exchange, limits)
    limiter.settle(exchange, answered(500))
    assert left(store, limits) == [2]
    assert exchange.hits[0].remaining == 2


def test_a_limit_without_count_and_what_is_owed_stay_taken(limiter: Limiter, store: Store) -> None:
    own = Want(RateLimit(9, 60, 9, "key"), "ann")
    counted, judged = LimitMark.of("3/minute"), LimitMark.of("3/minute", count=only_failures)
    limits = route_limits(counted, judged)
    exchange = request("192.0.2.1", None, own)
    assert limiter.take(exchange, limits) is None
    limiter.settle(exchange, answered(200))
    assert left(store, limits) == [2, 3]
    assert store.peek(own.limit, own.client).remaining == 8


def test_a_refused_request_has_nothing_to_give_back(limiter: Limiter, store: Store) -> None:
    judged, short = LimitMark.of("9/minute", count=only_failures), LimitMark.of("1/minute")
    limits = route_limits(judged, short)
    limiter.take(request(), limits)
    refused = request()
    assert limiter.take(refused, limits) is not None
    assert refused.provisional == ()
    limiter.settle(refused, answered(200))
    assert left(store, limits) == [8, 0]


def test_each_limit_is_judged_once_for_all_its_parts(limiter: Limiter) -> None:
    asked = []

    def count(response: Any) -> bool:
        asked.append(response.status_code)
        return False

    exchange = request()
    limiter.take(exchange, limits_of("3/minute; 9/hour; 20/day", count=count))
    limiter.settle(exchange, answered(204))
    assert asked == [204]


def test_a_count_that_raises_counts_and_is_logged(
    limiter: Limiter, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    limits = limits_of("3/minute", count=lambda response: response.no_such_attribute)
    exchange = request()
    limiter.take(exchange, limits)
    limiter.settle(exchange, answered(200))
    assert left(store, limits) == [2]
    [record] = caplog.records
    assert record.exc_info is not None
    assert "report" in record.getMessage()


def test_a_refund_that_fails_is_passed_over(limiter: Limiter, store: Store) -> None:
    exchange = request()
    limiter.take(exchange, limits_of("3/minute", count=only_failures))
    store.failing = True
    limiter.settle(exchange, answered(200))
    assert exchange.hits[0].remaining == 2


@pytest.mark.parametrize(("seconds", "given_back"), [(19.9, True), (20, False), (-1, False)])
def test_a_token_that_came_back_by_itself_is_not_given_back_again(
    limiter: Limiter, clock: Clock, seconds: float, given_back: bool
) -> None:
    exchange = request()
    limiter.take(exchange, limits_of("3/minute", count=only_failures))
    clock.advance(seconds)
    limiter.settle(exchange, answered(200))
    assert exchange.hits[0].remaining == (3 if given_back else 2)


def test_a_clock_that_steps_back_shuts_nobody_out(limiter: Limiter, clock: Clock) -> None:
    limits = limits_of("3/minute")
    assert statuses(limiter, limits, 4) == [200, 200, 200, 429]
    clock.advance(-(10**6))
    assert statuses(limiter, limits, 4) == [200, 200, 200, 429]
    clock.advance(20)
    assert statuses(limiter, limits, 2) == [200, 429]


# Limits with shadow


def test_a_limit_with_shadow_refuses_nobody_and_counts_whom_it_would_have(
    store: Store, clock: Clock
) -> None:
    seen: list[str] = []
    limiter = Limiter(RateLimitSettings(), store, clock, observers=[seen.append, seen.append])
    limits = limits_of("2/minute", shadow=True)
    exchange = request()
    assert limiter.take(exchange, limits) is None
    assert exchange.hits == ()
    assert statuses(limiter, limits, 4) == [200] * 4
    assert limiter.shadow_refusals.totals == {"report": 3}
    assert seen == ["report"] * 6


def test_a_request_that_another_limit_refuses_is_not_tried_out(
    limiter: Limiter, store: Store
) -> None:
    shadow, short = LimitMark.of("5/minute", shadow=True), LimitMark.of("1/minute")
    limits = route_limits(shadow, short)
    assert statuses(limiter, limits, 4) == [200, 429, 429, 429]
    assert left(store, limits) == [4, 0]
    assert limiter.shadow_refusals.totals == {}


def test_a_trial_gives_back_what_does_not_count(limiter: Limiter, store: Store) -> None:
    limits = limits_of("2/minute", shadow=True, count=only_failures)
    exchange = request()
    limiter.take(exchange, limits)
    assert left(store, limits) == [1]
    limiter.settle(exchange, answered(200))
    assert left(store, limits) == [2]


def test_a_trial_holds_nobody_up_where_the_store_fails_or_the_cost_cannot_be(
    limiter: Limiter, store: Store
) -> None:
    impossible = limits_of("2/minute", cost=lambda: 3, shadow=True)
    assert statuses(limiter, impossible, 2) == [200, 200]
    assert limiter.shadow_refusals.totals == {"report": 2}
    store.failing = True
    assert statuses(limiter, limits_of("2/minute", shadow=True), 5) == [200] * 5
    assert limiter.shadow_refusals.totals == {"report": 2}


def test_a_trial_is_logged_at_most_every_thirty_seconds_with_what_came_between(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="flask_m9m")
    refusals = ShadowRefusals(clock)
    for seconds in (0, 0, 29.9, 0.1, 30):
        clock.advance(seconds)
        refusals.note("report")
    refusals.note("other")
    said = [record.getMessage().rpartition("refused ")[2] for record in caplog.records]
    assert said == ["1 more", "3 more", "1 more", "1 more"]
    assert refusals.totals == {"report": 5, "other": 1}
    clock.advance(-(10**6))
    refusals.note("report")
    assert len(caplog.records) == 5  # a step back does not silence the log until it is made up for


# Refusals and threads


@pytest.fixture
def switching() -> Iterator[None]:
    """Let threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(("seconds", "said"), [(0, "1"), (1, "1"), (61, "61")])
def test_a_refusal_never_says_to_come_back_at_once(seconds: int, said: str) -> None:
    error: M9MError = limited(Hit(RateLimit(1, 60, 1, "report"), False, 0, seconds, 60))
    assert list(error.headers) == [("Retry-After", said)]


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("count", [1, 8, 64])
@pytest.mark.parametrize("judged", [False, True], ids=["plain", "judged"])
def test_threads_together_get_no_more_than_the_burst(
    limiter: Limiter, count: int, judged: bool
) -> None:
    options: dict[str, Callable[[Any], bool]] = {"count": only_failures} if judged else {}
    limits = limits_of("50/hour", **options)
    barrier = threading.Barrier(count)

    def use(_: int) -> int:
        barrier.wait()
        admitted = 0
        for _ in range(128 // count):
            exchange = request()
            if limiter.take(exchange, limits) is None:
                admitted += 1
                limiter.settle(exchange, answered(500))
        return admitted

    with ThreadPoolExecutor(count) as pool:
        assert sum(pool.map(use, range(count))) == 50


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("count", [8, 64])
def test_threads_count_every_trial(clock: Clock, count: int) -> None:
    refusals = ShadowRefusals(clock)
    barrier = threading.Barrier(count)

    def use(_: int) -> None:
        barrier.wait()
        for _ in range(100):
            refusals.note("report")

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(use, range(count)))
    assert refusals.totals == {"report": 100 * count}


def test_no_key_is_the_hash_of_another() -> None:
    for key in (custom_key, identity_key):
        long = key("x" * 65)
        assert key(long.partition(":")[2]) != long
        assert key(long.rpartition(":")[2]) != long
        assert key(key(long)) != long
