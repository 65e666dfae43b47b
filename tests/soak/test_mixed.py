"""A moment of the soak under mixed load, and what it calls flat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .mixed import Moment, growth, soak


def test_every_client_of_the_soak_is_answered_as_expected(tmp_path: Path) -> None:
    moments, faults = soak(tmp_path, seconds=8.0, every=1.0)
    assert not faults
    assert sum(moment.answers for moment in moments) > 100
    assert all(moment.memory > 1 and moment.descriptors > 1 for moment in moments)


def moments(of: Callable[[int], Moment]) -> list[Moment]:
    return [of(number) for number in range(100)]


def test_what_stays_as_it_is_or_grows_while_caches_fill_is_flat() -> None:
    assert growth(moments(lambda n: Moment(n, 90.0 + min(n, 20), 30, 4.0, 20.0, 100))) == []
    assert growth(moments(lambda n: Moment(n, 110.0, 30 + n % 7, 4.0 + n % 3, 20.0, 100))) == []


@pytest.mark.parametrize(
    ("name", "grown"),
    [
        ("memory", lambda n: Moment(n, 90.0 + n / 4, 30, 4.0, 20.0, 100)),
        ("descriptors", lambda n: Moment(n, 90.0, 30 + n, 4.0, 20.0, 100)),
        ("typical", lambda n: Moment(n, 90.0, 30, 4.0 + n / 4, 20.0, 100)),
        ("slow", lambda n: Moment(n, 90.0, 30, 4.0, 20.0 + n, 100)),
    ],
)
def test_a_leak_and_a_delay_that_grows_are_not_flat(
    name: str, grown: Callable[[int], Moment]
) -> None:
    (found,) = growth(moments(grown))
    assert found.startswith(f"{name} has grown from")
