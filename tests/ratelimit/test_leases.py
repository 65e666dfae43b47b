from __future__ import annotations

import os
from functools import partial
from operator import add
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_m9m.ratelimit import RateLimit, Want
from flask_m9m.ratelimit.gcra import Hit, give_back
from flask_m9m.ratelimit.leases import Leases, Reservation, reserve

SECOND = 1_000_000
LIMIT = RateLimit(60, 60, 100)


class Server:
    """The server's side: one client's theoretical arrival time."""

    def __init__(self, limit: RateLimit, most: int) -> None:
        self.limit = limit
        self.most = most
        self.tat = 0
        self.asked = 0

    def answer(self, now: int, cost: int) -> Reservation:
        self.asked += 1
        answer = reserve(self.limit, self.tat, now, cost, self.most)
        if answer.taken:
            self.tat = answer.tat + answer.taken * self.limit.interval
        return answer


def hit(leases: Leases, server: Server, here: int, now: int, cost: int = 1) -> Hit:
    """A request as a store serves it, without any delay."""
    known = leases.spend(server.limit, "client", cost, lambda: here)
    if known is not None:
        return known
    return leases.add(server.limit, "client", cost, server.answer(now, cost), here)


limits = st.builds(
    RateLimit,
    count=st.sampled_from([1, 6, 60, 600]),
    period=st.sampled_from([1, 60]),
    burst=st.sampled_from([1, 3, 8, 12, 50]),
)
steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0.001, 0.3, 1.0, 1.7, 60.0]),  # intervals until the request
        st.integers(0, 9),  # whose it is
        st.integers(1, 3),  # what it costs
        st.sampled_from([0, 500, 50_000, 190_000]),  # on the way there
        st.sampled_from([0, 500, 50_000]),  # on the way back
        st.sampled_from([1, 1, 3, 20]),  # how many at once
        st.booleans(),  # whether their tokens are given back
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(
    limits,
    st.sampled_from([1, 2, 10, 100]),
    st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=10),
    steps,
)
def test_no_window_ever_admits_more_than_burst_plus_rate_times_its_length(
    limit: RateLimit,
    most: int,
    clocks: list[int],
    steps: list[tuple[float, int, int, int, int, int, bool]],
) -> None:
    server = Server(limit, most)
    workers = [Leases() for _ in clocks]
    spent: list[int] = []
    now = 10**13
    for gap, number, cost, there, back, times, given_back in steps:
        now += int(gap * limit.interval)
        number %= len(clocks)
        cost = min(cost, limit.burst)
        for _ in range(times):
            leases, at = workers[number], now
            told = leases.spend(limit, "client", cost, partial(add, now, clocks[number]))
            if told is None:
                at = now + there
                answer = server.answer(at, cost)
                told = leases.add(limit, "client", cost, answer, now + clocks[number])
                now = at + back
            assert told.remaining >= 0
            assert told.admitted or told.next_token >= 1
            if told.admitted and given_back:
                if not leases.give_back(limit, "client", cost):
                    leases.forget(limit, "client")
                    server.tat = give_back(limit, server.tat, now, cost)
            elif told.admitted:
                spent += [at] * cost
    for first in range(len(spent)):
        for last in range(first, len(spent)):
            window = spent[last] - spent[first]
            allowed = limit.burst + window * limit.count / (limit.period * SECOND)
            assert last - first + 1 <= allowed + 1e-9


def test_tokens_taken_ahead_are_spent_without_asking() -> None:
    leases, server = Leases(), Server(LIMIT, 10)
    hits = [hit(leases, server, 0, 10**12) for _ in range(20)]
    assert all(one.admitted for one in hits)
    assert server.asked == 2
    assert [one.remaining for one in hits] == list(range(99, 79, -1))


def test_no_more_than_a_quarter_of_what_is_there_is_taken_ahead() -> None:
    assert reserve(LIMIT, 0, 10**12, 1, 1_000).taken == 25
    assert reserve(LIMIT, 10**12 + 97 * SECOND, 10**12, 1, 1_000).taken == 1
    assert reserve(LIMIT, 0, 10**12, 40, 1_000).taken == 40


def test_a_slot_whose_moment_is_over_is_gone() -> None:
    leases, server = Leases(), Server(LIMIT, 10)
    hit(leases, server, 0, 10**12)
    assert leases.spend(LIMIT, "client", 1, lambda: 5 * SECOND) is not None
    assert leases.spend(LIMIT, "client", 1, lambda: 9 * SECOND + 1) is None


def test_several_buckets_are_spent_from_together_or_not_at_all() -> None:
    leases, server = Leases(), Server(LIMIT, 10)
    hit(leases, server, 0, 10**12)
    other = RateLimit(1, 3600, 1, "other")
    leases.add(other, "client", 1, Reservation(1, 10**12, 10**12), 0)

    def spend(*costs: int) -> tuple[bool, list[int | None]]:
        wants = [Want(LIMIT, "client", cost) for cost in costs]
        spent, hits = leases.spend_all(wants, lambda: 0)
        return spent, [one and one.remaining for one in hits]

    assert spend(10) == (False, [None])
    assert spend(9, 9) == (False, [90, 90])
    spent, hits = leases.spend_all([Want(LIMIT, "client"), Want(other, "client")], lambda: 0)
    assert (spent, [one and one.admitted for one in hits]) == (False, [True, False])
    assert leases.spend_all([Want(LIMIT, "client"), Want(LIMIT, "b")], lambda: 0)[1][1] is None
    assert spend(4) == (True, [95])
    assert spend(5) == (True, [90])
    assert spend(1) == (False, [None])


def test_a_refusal_is_repeated_for_a_second_and_no_longer_than_it_holds() -> None:
    limit = RateLimit(1, 3600, 1)
    leases, server = Leases(), Server(limit, 10)
    assert hit(leases, server, 0, 10**12).admitted
    for _ in range(3):
        assert not hit(leases, server, 10, 10**12 + 10).admitted
    assert server.asked == 1
    assert not hit(leases, server, SECOND + 1, 10**12 + SECOND + 1).admitted
    assert server.asked == 2
    fast = RateLimit(10, 1, 1)
    leases, server = Leases(), Server(fast, 10)
    assert hit(leases, server, 0, 10**12).admitted
    assert not hit(leases, server, 99_999, 10**12 + 99_999).admitted
    assert hit(leases, server, 100_000, 10**12 + 100_000).admitted


def test_what_is_taken_for_nobody_yet_is_all_there_to_spend() -> None:
    leases, server = Leases(), Server(LIMIT, 10)
    leases.add(LIMIT, "client", 0, server.answer(10**12, 1), 0)
    assert [hit(leases, server, 0, 10**12).remaining for _ in range(10)] == list(range(99, 89, -1))
    assert server.asked == 1


def test_what_is_given_back_is_spent_again_before_its_moment_is_over() -> None:
    leases, server = Leases(), Server(LIMIT, 10)
    for _ in range(40):
        assert hit(leases, server, 0, 10**12).remaining == 99
        assert leases.give_back(LIMIT, "client", 1)
    assert server.asked == 1
    assert [hit(leases, server, 0, 10**12).remaining for _ in range(10)] == list(range(99, 89, -1))
    assert leases.give_back(LIMIT, "client", 10), "a run that is spent"
    assert not leases.give_back(LIMIT, "client", 1)
    assert leases.spend(LIMIT, "client", 10, lambda: 0)
    assert leases.give_back(LIMIT, "client", 10)
    assert leases.spend(LIMIT, "client", 1, lambda: 10 * SECOND) is None
    assert not leases.give_back(LIMIT, "another", 1)


def test_what_is_forgotten_is_spent_by_nobody() -> None:
    leases, server = Leases(), Server(LIMIT, 10)
    hit(leases, server, 0, 10**12)
    leases.forget(LIMIT, "client")
    assert leases.spend(LIMIT, "client", 1, lambda: 0) is None
    assert hit(leases, server, 0, 10**12).remaining == 89


def test_clients_and_limits_have_leases_of_their_own() -> None:
    leases, server = Leases(), Server(LIMIT, 10)
    hit(leases, server, 0, 10**12)
    assert leases.spend(LIMIT, "another", 1, lambda: 0) is None
    assert leases.spend(RateLimit(61, 60, 100), "client", 1, lambda: 0) is None


def test_memory_is_bounded_and_the_oldest_gives_way() -> None:
    leases, answer = Leases(capacity=10), Reservation(10, 10**12, 10**12)
    for number in range(30):
        leases.add(LIMIT, f"{number}", 1, answer, 0)
    held = [n for n in range(30) if leases.spend(LIMIT, f"{n}", 1, lambda: 0) is not None]
    assert held == list(range(20, 30))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_spends_nothing_of_its_parents() -> None:
    leases, server = Leases(), Server(LIMIT, 10)
    hit(leases, server, 0, 10**12)
    child = os.fork()
    if child == 0:
        os._exit(0 if leases.spend(LIMIT, "client", 1, lambda: 0) is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert leases.spend(LIMIT, "client", 1, lambda: 0) is not None


@pytest.mark.parametrize("cost", [1, 3])
def test_spending_never_splits_a_request_between_too_few_tokens(cost: int) -> None:
    leases = Leases()
    for tat in (10**12, 10**12 + 50 * SECOND):  # two runs of 3 and 3
        leases.add(LIMIT, "client", 0, Reservation(3, tat, 10**12), 0)
    told: list[Any] = [leases.spend(LIMIT, "client", cost, lambda: 0) for _ in range(6 // cost + 1)]
    assert [one is not None for one in told] == [True] * (6 // cost) + [False]


def test_a_process_takes_ahead_what_it_needed_last_and_twice_that_where_it_was_too_little() -> None:
    leases, limit, now = Leases(), RateLimit(1_000, 1_000, 1_000), 10**12

    def ask(used: int) -> int:
        """Ask the server when nothing is left, and use so much of what it gave."""
        most = leases.ahead(limit, "client", 16, now)
        answer = reserve(limit, 0, now, 1, most)
        leases.add(limit, "client", 1, answer, now)
        for _ in range(used - 1):
            assert leases.spend(limit, "client", 1, lambda: now)
        return answer.taken

    assert [ask(1), ask(2), ask(4), ask(8), ask(3)] == [1, 2, 4, 8, 16]
    assert ask(1) == 3
    assert ask(1) == 1
    assert leases.ahead(limit, "another", 16, now) == 1
    assert leases.ahead(limit, "client", 16, now + limit.tolerance + 1) == 1


def test_no_slot_is_spent_late_because_the_local_clock_is_slow() -> None:
    leases, limit, now = Leases(), RateLimit(10, 1, 100), 10**12
    leases.add(limit, "client", 1, reserve(limit, 0, now, 1, 1), now)
    leases.add(limit, "client", 1, reserve(limit, 0, now, 1, 20), now)
    last = now + 19 * limit.interval
    assert leases.spend(limit, "client", 1, lambda: last) is None
    leases.add(limit, "client", 1, reserve(limit, 0, now, 1, 20), now)
    assert leases.spend(limit, "client", 1, lambda: last - 2_000) is not None
