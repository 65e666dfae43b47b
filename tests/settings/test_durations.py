from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.settings import parse_duration
from flask_m9m.settings.durations import DURATION_PATTERN, LONGEST, format_duration

CENTURY = 36_525 * 86_400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("24h", 86_400),
        ("7d", 604_800),
        ("1h30m", 5_400),
        ("1d2h3m4s5ms", 93_784.005),
        ("500ms", 0.5),
        ("1.5h", 5_400),
        ("0s", 0),
        ("3600", 3_600),
        (" 15m ", 900),
        (60, 60),
        (0.5, 0.5),
        (timedelta(minutes=2), 120),
    ],
)
def test_a_duration_is_read_in_seconds(text: Any, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "h",
        "1 h",
        "15M",
        "-5m",
        "5m-",
        "+5m",
        "1h1h",
        "30m1h",
        "1w",
        "1y",
        "soon",
        "1e3",
        "inf",
        "nan",
        "１５m",
        "٣m",
        "1h\n2m",
        "1_0s",
        "0x10",
        "9" * 63 + "d",
        "1" * 1_000_000,
        True,
        False,
        None,
        [],
        b"1h",
        -1,
        float("nan"),
        float("inf"),
        10**400,
        timedelta(seconds=-1),
        timedelta.max,
    ],
)
def test_anything_else_is_refused_with_the_forms_that_are_accepted(text: Any) -> None:
    with pytest.raises(ValueError, match='such as "90s"'):
        parse_duration(text)


@given(st.one_of(st.text(), st.text("0123456789.dhms "), st.floats(), st.integers(), st.none()))
def test_no_input_raises_anything_but_value_error(value: Any) -> None:
    try:
        seconds = parse_duration(value)
    except ValueError:
        return
    assert 0 <= seconds <= CENTURY


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_a_compound_is_the_sum_of_its_parts(d: int, h: int, m: int, s: int) -> None:
    assert parse_duration(f"{d}d{h}h{m}m{s}s") == d * 86_400 + h * 3_600 + m * 60 + s


@given(st.text("0123456789.dhms", max_size=12))
def test_the_schema_accepts_the_texts_that_the_parser_does(text: str) -> None:
    try:
        accepted = parse_duration(text) <= LONGEST
    except ValueError:
        accepted = False
    if re.search(DURATION_PATTERN, json.loads(json.dumps(text))) is None:
        assert not accepted
    elif not accepted:  # only its size is beyond what a pattern can tell
        with pytest.raises(ValueError, match="from 0 to a century"):
            parse_duration(text)


@given(st.integers(0, int(LONGEST * 1_000)))
def test_a_duration_is_written_as_it_is_read(milliseconds: int) -> None:
    assert round(parse_duration(format_duration(milliseconds / 1_000)) * 1_000) == milliseconds


@given(st.floats(0, LONGEST))
def test_every_duration_can_be_read_again(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.000_001)
