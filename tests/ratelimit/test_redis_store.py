from __future__ import annotations

import multiprocessing
import secrets
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_m9m.ratelimit import RateLimit, StoreFailure, Want
from flask_m9m.ratelimit.gcra import known
from flask_m9m.ratelimit.leases import reserve
from flask_m9m.ratelimit.redis_store import _SCRIPT, RedisStore

SECOND = 1_000_000
KEY = b"0123456789abcdef"
SLOW = RateLimit(1, 3600, 5, "slow")
OTHER = RateLimit(1, 3600, 3, "other")

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def app_name() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def store(redis_url: str, app_name: str) -> RedisStore:
    return RedisStore(redis_url, KEY, app_name)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Any]:
    """Another client of the same server."""
    from redis import Redis

    with Redis.from_url(redis_url, protocol=2) as client:
        yield client


def keys_of(redis: Any, store: RedisStore) -> list[bytes]:
    return list(redis.scan_iter(store._prefix + b"*"))


def test_a_bucket_gives_its_burst_and_then_refuses(store: RedisStore) -> None:
    hits = [store.hit(SLOW, "client") for _ in range(6)]
    assert [hit.admitted for hit in hits] == [True] * 5 + [False]
    assert [hit.remaining for hit in hits] == [4, 3, 2, 1, 0, 0]
    assert 3590 <= hits[-1].next_token <= 3600
    assert store.hit(SLOW, "another").admitted


def test_tokens_come_back_with_time(store: RedisStore) -> None:
    fast = RateLimit(1_000_000, 1, 1, "fast")
    assert all(store.hit(fast, "client").admitted for _ in range(5))


def test_a_cost_is_taken_whole_or_not_at_all(store: RedisStore) -> None:
    assert store.hit(SLOW, "client", 3).remaining == 2
    assert not store.hit(SLOW, "client", 3).admitted
    assert store.hit(SLOW, "client", 2).admitted


def test_a_refusal_writes_nothing(store: RedisStore, redis: Any) -> None:
    store.hit(SLOW, "client", 5)
    [key] = keys_of(redis, store)
    before = redis.get(key), redis.pexpiretime(key)
    store._leases.forget(SLOW, "client")
    assert not store.hit(SLOW, "client").admitted
    assert (redis.get(key), redis.pexpiretime(key)) == before


def test_a_refusal_is_repeated_without_asking(store: RedisStore, redis: Any) -> None:
    store.hit(SLOW, "client", 5)
    assert not store.hit(SLOW, "client").admitted
    redis.delete(*keys_of(redis, store))
    assert not store.hit(SLOW, "client").admitted


def test_keys_and_values_show_nothing_of_a_client(store: RedisStore, redis: Any) -> None:
    store.hit(SLOW, "203.0.113.7")
    [key] = keys_of(redis, store)
    assert len(key) == len("m9m:rl:{") + 40 + 1
    assert set(key[8:-1]) <= set(b"0123456789abcdef")
    value = redis.get(key)
    assert b"203" not in key + value.split(b" ")[1]
    assert value.split(b" ", 1)[1] == SLOW.key.encode()
    assert store.client_id(SLOW, "203.0.113.7").encode() in key


def test_the_wire_format_of_a_key_is_frozen(redis_url: str) -> None:
    store = RedisStore(redis_url, KEY, "shop")
    assert store._client_key(SLOW, "c") == (b"m9m:rl:{51093c7604fd7cfc6875567a988817ef1cfdc8e0}")


def test_other_keys_apps_limits_and_clients_have_other_names(redis_url: str) -> None:
    def name(key: bytes, app: str, limit: RateLimit, client: str) -> bytes:
        return RedisStore(redis_url, key, app)._client_key(limit, client)

    names = [
        name(KEY, "app", SLOW, "c"),
        name(KEY, "app2", SLOW, "c"),
        name(b"another key 1234", "app", SLOW, "c"),
        name(KEY, "app", OTHER, "c"),
        name(KEY, "app", SLOW, "d"),
        name(KEY, "app", RateLimit(1, 3600, 5, scope="sl"), "owc"),
    ]
    assert len(set(names)) == len(names)


def test_a_key_expires_soon_after_its_bucket_is_full(store: RedisStore, redis: Any) -> None:
    store.hit(SLOW, "client", 2)
    [key] = keys_of(redis, store)
    assert 7_200_000 - 5_000 < redis.pttl(key) <= 7_201_000


def test_a_refund_puts_tokens_back_and_no_more_than_there_were(store: RedisStore) -> None:
    store.hit(SLOW, "client", 5)
    store.refund(SLOW, "client", 2)
    assert store.peek(SLOW, "client").remaining == 2
    store.refund(SLOW, "client", 5)
    assert store.peek(SLOW, "client").remaining == 5
    assert store.hit(SLOW, "client", 5).admitted
    assert not store.hit(SLOW, "client").admitted


def test_refunds_of_a_lease_cost_no_more_than_the_token_whose_moment_is_over_at_once(
    redis_url: str, app_name: str
) -> None:
    store = RedisStore(redis_url, KEY, app_name, 10)
    limit = RateLimit(1, 3600, 20)
    for _ in range(2):  # one and then two tokens are taken
        store.hit(limit, "client")
    for _ in range(50):
        assert store.hit(limit, "client").remaining >= 16
        store.refund(limit, "client")
    assert sum(store.hit(limit, "client").admitted for _ in range(20)) in (17, 18)


def test_refunds_in_many_processes_leave_the_token_to_any_of_them(
    redis_url: str, app_name: str
) -> None:
    for _ in range(10):
        store = RedisStore(redis_url, KEY, app_name, 100)
        assert store.hit(SLOW, "client").remaining == 4
        store.refund(SLOW, "client")


def test_a_refund_to_an_unknown_client_leaves_no_key(store: RedisStore, redis: Any) -> None:
    store.refund(SLOW, "nobody")
    assert keys_of(redis, store) == []


def test_a_peek_takes_nothing(store: RedisStore, redis: Any) -> None:
    assert store.peek(SLOW, "client").remaining == 5
    assert keys_of(redis, store) == []
    store.hit(SLOW, "client", 5)
    peeked = store.peek(SLOW, "client")
    assert (peeked.admitted, peeked.remaining) == (False, 0)


def test_a_reset_fills_a_bucket(store: RedisStore, redis: Any) -> None:
    store.hit(SLOW, "client", 5)
    assert not store.hit(SLOW, "client").admitted
    store.reset(SLOW, "client")
    assert store.hit(SLOW, "client", 5).admitted


def test_a_value_that_is_none_of_ours_counts_as_a_full_bucket(
    store: RedisStore, redis: Any
) -> None:
    for garbage in (b"", b"junk", b"-5 x", b"1e400 x", b"9" * 400 + b" x", b"99999999999999999 x"):
        redis.set(store._client_key(SLOW, "client"), garbage)
        store._leases.forget(SLOW, "client")
        assert store.hit(SLOW, "client").remaining == 4, garbage


def test_a_key_of_another_type_is_a_failure(store: RedisStore, redis: Any) -> None:
    redis.rpush(store._client_key(SLOW, "client"), "x")
    with pytest.raises(StoreFailure, match="WRONGTYPE"):
        store.hit(SLOW, "client")
    assert store.hit(SLOW, "another").admitted


def test_the_script_is_sent_again_where_the_server_has_forgotten_it(
    store: RedisStore, redis: Any
) -> None:
    assert store.hit(SLOW, "client").remaining == 4
    redis.script_flush()
    assert store.hit(SLOW, "client").remaining == 3
    redis.script_flush()
    assert [hit.remaining for hit in store.hit_all([Want(SLOW, "a"), Want(OTHER, "a")])] == [4, 2]


@pytest.mark.parametrize("lease", [1, 2])
def test_of_several_buckets_all_are_taken_from_or_none(
    redis_url: str, app_name: str, lease: int
) -> None:
    store = RedisStore(redis_url, KEY, app_name, lease)
    wants = [Want(SLOW, "client"), Want(OTHER, "client", 2)]
    hits = store.hit_all(wants)
    assert [(hit.admitted, hit.remaining) for hit in hits] == [(True, 4), (True, 1)]
    for other in (store, RedisStore(redis_url, KEY, app_name, lease)):
        *rest, last = other.hit_all(wants)
        assert (last.limit, last.admitted, last.remaining) == (OTHER, False, 1)
        assert [hit.remaining for hit in rest] in ([], [4])
    for _ in range(4):
        assert other.hit(SLOW, "client").admitted
    assert not other.hit(SLOW, "client").admitted


def test_tokens_that_were_not_needed_come_back_for_other_processes(
    redis_url: str, app_name: str
) -> None:
    store, other = (RedisStore(redis_url, KEY, app_name) for _ in range(2))
    store.hit(OTHER, "client", 3)
    hits = store.hit_all([Want(SLOW, "client", 5), Want(OTHER, "client")])
    assert not hits[-1].admitted
    assert other.hit(SLOW, "client", 5).admitted


def test_a_token_that_another_thread_spent_meanwhile_is_asked_for(
    redis_url: str, app_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = (RedisStore(redis_url, KEY, app_name, 10) for _ in range(2))
    limit = RateLimit(1, 3600, 100)
    wants = [Want(OTHER, "client", 2), Want(limit, "client")]
    for _ in range(2):
        store.hit(*wants[1])
    spend_all = store._leases.spend_all

    def spend_all_but_too_late(*arguments: Any) -> Any:
        known_here = spend_all(*arguments)
        store._leases.forget(limit, "client")
        return known_here

    monkeypatch.setattr(store._leases, "spend_all", spend_all_but_too_late)
    assert [hit.remaining for hit in store.hit_all(wants)] == [1, 96]
    other.reset(OTHER, "client")
    store._leases.forget(OTHER, "client")
    assert store.hit(*wants[1]).remaining == 95
    other.hit(limit, "client", other.peek(limit, "client").remaining)
    [untaken, last] = store.hit_all(wants)
    assert (last.limit, last.admitted, untaken.remaining) == (limit, False, 3)
    assert other.peek(OTHER, "client").remaining == 3


def test_several_buckets_are_asked_for_in_one_round_trip(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.hit(SLOW, "warm")
    sent = []
    ask = store._servers.ask
    monkeypatch.setattr(
        store._servers,
        "ask",
        lambda commands, end: sent.append(len(commands)) or ask(commands, end),
    )
    store.hit_all([Want(SLOW, "a"), Want(OTHER, "a"), Want(SLOW, "b")])
    assert sent == [3]


def test_a_lease_is_spent_without_asking(
    redis_url: str, app_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore(redis_url, KEY, app_name, 10)
    limit = RateLimit(1, 3600, 100)
    asked: list[int] = []
    ask = store._servers.ask
    monkeypatch.setattr(store._servers, "ask", lambda *words: asked.append(1) or ask(*words))
    remaining = [store.hit(limit, "client").remaining for _ in range(35)]
    assert remaining == list(range(99, 64, -1))
    assert len(asked) == 6  # for 1, 2, 4, 8, 10 and 10 tokens
    hits = store.hit_all([])
    assert hits == []


def test_a_lease_of_one_takes_nothing_ahead(store: RedisStore, redis: Any) -> None:
    limit = RateLimit(1, 3600, 100)
    store.hit(limit, "client")
    assert store.peek(limit, "client").remaining == 99


def test_a_lease_below_one_is_refused(redis_url: str) -> None:
    with pytest.raises(ValueError, match="lease"):
        RedisStore(redis_url, KEY, "app", 0)


def test_spenders_are_those_whose_buckets_are_not_full(store: RedisStore, redis: Any) -> None:
    long_name = RateLimit(1, 3600, 7, "long", "s" * 300)
    store.hit(SLOW, "a", 2)
    store.hit(OTHER, "b")
    store.hit(long_name, "c")
    redis.set(store._prefix + b"garbage}", "x")
    redis.rpush(store._prefix + b"list}", "x")
    store.hit(RateLimit(1_000_000, 1, 1, "fast"), "d")
    found = {(one.limit.name[:4], one.client_id, one.hit.remaining) for one in store.spenders()}
    assert found == {
        ("slow", store.client_id(SLOW, "a"), 3),
        ("othe", store.client_id(OTHER, "b"), 2),
        (
            next(one.limit.name for one in store.spenders() if one.limit.burst == 7)[:4],
            store.client_id(long_name, "c"),
            6,
        ),
    }


def test_more_spenders_than_one_question_returns_are_all_found(store: RedisStore) -> None:
    store.hit_all([Want(SLOW, f"client {number}") for number in range(1_500)])
    assert len(list(store.spenders())) == 1_500


def test_texts_of_any_kind_name_a_client(store: RedisStore) -> None:
    for client in ("", "\0", "ü", "\ud800", "x" * 100_000):
        assert store.hit(SLOW, client).remaining == 4


stored = st.one_of(st.none(), st.integers(-200, 200), st.integers(-(10**15), 10**15))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    count=st.integers(1, 1000),
    period=st.sampled_from([1, 60, 3600, 86_400, 360 * 86_400]),
    burst=st.integers(1, 200),
    ahead=stored,
    cost=st.integers(1, 200),
    most=st.integers(1, 1000),
)
def test_the_script_carries_out_the_rule(
    redis: Any, count: int, period: int, burst: int, ahead: int | None, cost: int, most: int
) -> None:
    try:
        limit = RateLimit(count, period, burst)
    except ValueError:
        return
    cost = min(cost, burst)
    key = "m9m-test:script"
    seconds, micros = redis.time()
    tat = 0
    redis.delete(key)
    if ahead is not None:
        steps = limit.interval * ahead if abs(ahead) <= 200 else ahead
        tat = max(0, seconds * SECOND + micros + steps)
        redis.set(key, f"{tat} label")
    taken, told, now = redis.eval(
        _SCRIPT, 1, key, limit.interval, limit.tolerance, cost, most, limit.key
    )
    expected = reserve(limit, tat, now, cost, most)
    assert (taken, told, now) == expected
    if taken:
        assert redis.get(key) == f"{told + taken * limit.interval} {limit.key}".encode()
        back = redis.eval(_SCRIPT, 1, key, limit.interval, limit.tolerance, -cost, most, limit.key)
        tat = told + taken * limit.interval
        stored = int(redis.get(key).split()[0])
        now = back[2]
        assert known(limit, stored, now) == max(now, known(limit, tat, now) - cost * limit.interval)


def _hit_until_refused(url: str, app: str, lease: int, limit: RateLimit, count: Any) -> None:
    store = RedisStore(url, KEY, app, lease)

    def work() -> None:
        for _ in range(150):
            if store.hit(limit, "client").admitted:
                with count.get_lock():
                    count.value += 1

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("lease", [1, 50])
def test_threads_of_several_processes_share_one_bucket_exactly(
    redis_url: str, app_name: str, lease: int
) -> None:
    limit = RateLimit(1, 3600, 500)
    spawn = multiprocessing.get_context("spawn")
    count = spawn.Value("i", 0)
    workers = [
        spawn.Process(target=_hit_until_refused, args=(redis_url, app_name, lease, limit, count))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    if lease == 1:
        assert count.value == 500
    else:
        assert 400 < count.value <= 500
