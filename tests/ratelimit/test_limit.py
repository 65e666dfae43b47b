from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.ratelimit import limit_name, parse_limits


@pytest.mark.parametrize(
    ("notation", "expected"),
    [
        ("100/hour", [(100, 3600)]),
        ("100 per hour", [(100, 3600)]),
        ("10 per 5 minutes", [(10, 300)]),
        ("10/5minutes", [(10, 300)]),
        ("1/second;100/hour", [(1, 1), (100, 3600)]),
        ("1 per second, 5 PER day", [(1, 1), (5, 86400)]),
        ("3/month", [(3, 2592000)]),
        ("10/minute|100/hour", [(10, 60), (100, 3600)]),
        ("10per minute", [(10, 60)]),
        ("10 per minute", [(10, 60)]),
    ],
)
def test_flask_limiters_notation_reads_as_it_stands(
    notation: str, expected: list[tuple[int, int]]
) -> None:
    assert [(limit.count, limit.period) for limit in parse_limits(notation)] == expected


@pytest.mark.parametrize(
    "notation", ["", "100", "/hour", "100/fortnight", "0/hour", "-1/hour", "1/hour;", "1.5/hour"]
)
def test_what_is_no_limit_is_refused(notation: str) -> None:
    with pytest.raises(ValueError):
        parse_limits(notation)


@given(st.text(max_size=60))
def test_any_text_is_a_limit_or_a_value_error(notation: str) -> None:
    try:
        limits = parse_limits(notation)
    except ValueError:
        return
    assert all(limit.count >= 1 for limit in limits)


def test_the_burst_is_the_count_unless_it_is_given() -> None:
    assert parse_limits("5/minute")[0].burst == 5
    assert parse_limits("5/minute", burst=1)[0].most_in_a_period == 5
    assert parse_limits("5/minute")[0].most_in_a_period == 9


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_any_two_routes_get_limits_of_different_names(one: str, other: str) -> None:
    names = [limit_name(text) for text in (one, other)]
    assert all(parse_limits("1/second", name=name) for name in names)
    assert (names[0] == names[1]) == (one == other)


@pytest.mark.parametrize(
    ("notation", "text"),
    [
        ("5/second", "second"),
        ("5 per 90 seconds", "90 seconds"),
        ("5 per 5 minutes", "5 minutes"),
        ("5 per 120 seconds", "2 minutes"),
        ("5/day", "day"),
        ("5/month", "month"),
    ],
)
def test_a_period_is_shown_as_it_is_written(notation: str, text: str) -> None:
    (limit,) = parse_limits(notation)
    assert limit.period_text == text
