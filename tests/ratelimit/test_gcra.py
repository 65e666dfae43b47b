from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_m9m.ratelimit import MemoryStore, RateLimit
from flask_m9m.ratelimit.gcra import take

SECOND = 1_000_000


def admitted_at(limit: RateLimit, arrivals: list[int]) -> list[int]:
    tat, admitted = 0, []
    for now in arrivals:
        tat, hit = take(limit, tat, now)
        if hit.admitted:
            admitted.append(now)
    return admitted


limits = st.builds(
    RateLimit,
    count=st.integers(1, 1000),
    period=st.sampled_from([1, 60, 3600]),
    burst=st.integers(1, 50),
)
gaps = st.lists(
    st.one_of(st.integers(0, 10), st.integers(0, 100 * SECOND)), min_size=1, max_size=300
)


@settings(max_examples=400)
@given(limits, gaps)
def test_no_window_ever_admits_more_than_burst_plus_rate_times_its_length(
    limit: RateLimit, gaps: list[int]
) -> None:
    arrivals, now = [], 10**12
    for gap in gaps:
        now += gap
        arrivals.append(now)
    admitted = admitted_at(limit, arrivals)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            window = admitted[last] - admitted[first]
            allowed = limit.burst + window * limit.count / (limit.period * SECOND)
            assert last - first + 1 <= allowed + 1e-9


@given(limits, gaps)
def test_a_request_admitted_once_the_promised_seconds_have_passed(
    limit: RateLimit, gaps: list[int]
) -> None:
    tat, now = 0, 10**12
    for gap in gaps:
        now += gap
        tat, hit = take(limit, tat, now)
        assert 0 <= hit.remaining <= limit.burst
        assert hit.next_token >= 1
        if not hit.admitted:
            _, later = take(limit, tat, now + hit.next_token * SECOND)
            assert later.admitted


def test_a_bucket_gives_its_burst_then_one_token_an_interval() -> None:
    limit = RateLimit(count=10, period=60, burst=5)
    start = 10**12
    arrivals = [start] * 7 + [start + 5 * SECOND, start + 6 * SECOND, start + 6 * SECOND]
    assert len(admitted_at(limit, arrivals[:7])) == 5
    assert admitted_at(limit, arrivals)[5:] == [start + 6 * SECOND]


def test_the_edge_of_a_minute_does_not_double_the_limit() -> None:
    limit = RateLimit(count=10, period=60, burst=10)
    before, after = 59_900_000, 60_100_000
    assert len(admitted_at(limit, [before] * 10 + [after] * 10)) == 10


def test_a_time_far_ahead_is_a_damaged_slot_and_shuts_nobody_out() -> None:
    limit = RateLimit(count=60, period=60, burst=10)
    _, hit = take(limit, tat=10**15, now=10**6)
    assert hit.admitted


def test_remaining_and_next_token_read_as_in_the_documentation() -> None:
    limit = RateLimit(count=60, period=60, burst=10)
    _, hit = take(limit, 0, 10**12)
    assert (limit.policy_item, hit.item) == ('"default";q=60;w=60', '"default";r=9;t=1')


def test_rounding_the_interval_never_admits_one_too_many() -> None:
    limit = RateLimit(count=7, period=1, burst=1)
    assert limit.interval * limit.count >= SECOND


@pytest.mark.parametrize("bad", [(0, 60, 1), (1, 0, 1), (1, 60, 0), (-1, 60, 1)])
def test_a_limit_of_nothing_is_refused(bad: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RateLimit(*bad)


def remembered(store: MemoryStore) -> int:
    return sum(len(bucket or ()) for table in store._tables.values() for bucket in table)


class FakeClock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_million_clients_take_bounded_memory_and_free_nobody_who_is_at_the_limit() -> None:
    clock = FakeClock()
    store = MemoryStore(capacity=800, clock=clock)
    limit = RateLimit(count=1, period=3600, burst=1)
    assert store.hit(limit, "victim").admitted
    assert not store.hit(limit, "victim").admitted
    outcomes = [store.hit(limit, f"10.{n}").admitted for n in range(50_000)]
    assert not store.hit(limit, "victim").admitted
    assert sum(outcomes) < 800
    assert remembered(store) <= 800


def test_in_a_full_bucket_the_client_with_the_least_debt_gives_way() -> None:
    clock = FakeClock()
    store = MemoryStore(capacity=8, clock=clock)
    limit = RateLimit(count=60, period=60, burst=3)
    for _ in range(3):
        store.hit(limit, "debtor")
    for n in range(7):
        store.hit(limit, f"light-{n}")
    assert store.hit(limit, "newcomer").admitted
    assert not store.hit(limit, "debtor").admitted


def test_limits_of_different_names_do_not_share_buckets() -> None:
    store = MemoryStore(clock=FakeClock())
    one, other = (RateLimit(1, 60, 1, name) for name in ("one", "other"))
    assert store.hit(one, "a").admitted
    assert store.hit(other, "a").admitted
    assert not store.hit(one, "a").admitted


def test_threads_never_get_more_than_the_burst_together() -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = MemoryStore(clock=FakeClock())
    limit = RateLimit(60, 60, 25)
    with ThreadPoolExecutor(32) as pool:
        hits = list(pool.map(lambda _: store.hit(limit, "one"), range(400)))
    assert sum(hit.admitted for hit in hits) == 25
    rests = sorted(hit.remaining for hit in hits if hit.admitted)
    assert all(after - before == 1 for before, after in pairwise(rests))


def test_any_number_of_different_limits_takes_bounded_memory() -> None:
    store = MemoryStore(capacity=80, clock=FakeClock())
    for count in range(1, 2000):
        store.hit(RateLimit(count, 3600, count, "quota"), "ann")
    assert remembered(store) <= 80


def test_in_a_full_bucket_of_different_limits_whoever_is_at_its_limit_stays() -> None:
    clock = FakeClock()
    store = MemoryStore(capacity=8, clock=clock)
    strict, lenient = RateLimit(1, 3600, 1), RateLimit(100, 1, 100)
    for n in range(4):
        assert store.hit(strict, f"s-{n}").admitted
        assert store.hit(lenient, f"l-{n}").admitted
    for n in range(4):
        assert store.hit(strict, f"new-{n}").admitted  # a lenient one gave way
    assert not any(store.hit(strict, f"s-{n}").admitted for n in range(4))
    refused = store.hit(lenient, "newcomer")
    assert (refused.admitted, refused.remaining, refused.next_token) == (False, 0, 3600)
    clock.now += 3600
    assert store.hit(lenient, "newcomer").admitted


@pytest.mark.parametrize("bad", [(1.5, 60, 1), (1, 60, 1.5), (True, 60, 1), ("1", 60, 1)])
def test_a_limit_is_made_of_whole_numbers(bad: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ValueError, match="whole"):
        RateLimit(*bad)


def test_a_flood_through_one_limit_shuts_nobody_out_of_another() -> None:
    clock = FakeClock()
    store = MemoryStore(capacity=80, clock=clock)
    hourly, general = RateLimit(1, 3600, 1, "reset"), RateLimit(60, 60, 10, "default")
    for number in range(5_000):
        store.hit(hourly, f"mail-{number}")
    assert all(store.hit(general, f"10.0.0.{number}").admitted for number in range(500))


def test_a_flood_of_single_requests_forgets_nobody_who_has_used_nearly_all() -> None:
    clock = FakeClock()
    store = MemoryStore(capacity=80, clock=clock)
    daily, minutely = RateLimit(100, 86_400, 100), RateLimit(60, 60, 10)
    for _ in range(98):
        assert store.hit(daily, "heavy").admitted
    for number in range(5_000):
        store.hit(minutely, f"light-{number}")
    assert [store.hit(daily, "heavy").admitted for _ in range(3)] == [True, True, False]


def test_a_refund_is_as_if_nothing_had_been_taken() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    limit = RateLimit(1, 60, 2)
    for _ in range(10):
        assert store.hit(limit, "ann").remaining == 1
        store.refund(limit, "ann")
    store.refund(limit, "ann", 2)
    store.refund(limit, "nobody")
    assert [store.hit(limit, "ann").admitted for _ in range(3)] == [True, True, False]
