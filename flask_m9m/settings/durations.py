"""Durations: parsing and formatting `"90s"`, `"15m"`, `"1h30m"`, `"7d"`, or a number of seconds."""

from __future__ import annotations

import re
from datetime import timedelta

LONGEST = 36_525 * 86_400.0  # a century
DURATION_PATTERN = (
    r"^(?=.)([0-9]+(\.[0-9]+)?d)?([0-9]+(\.[0-9]+)?h)?([0-9]+(\.[0-9]+)?m)?"
    r"([0-9]+(\.[0-9]+)?s)?([0-9]+(\.[0-9]+)?ms)?$|^[0-9]+(\.[0-9]+)?$"
)

_ACCEPTED = 'write a duration such as "90s", "15m", "24h", "7d", "1h30m", or a number of seconds'
_MAX_TEXT = 64
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DAY = 86_400_000  # milliseconds; everybody writes it as 24h
_COMPOUND = re.compile(
    "".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?){unit}(?![a-z]))?" for unit in _SECONDS)
)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_duration(value: str | float | timedelta) -> float:
    """Convert a duration to seconds.

    Args:
        value: text with the units `d`, `h`, `m`, `s` and `ms`, each at most once and the largest
            first; or a number of seconds, also as text; or a `timedelta`.

    Returns:
        Seconds, from 0 to a century (36,525 days).

    Raises:
        ValueError: the value has none of these forms, or is out of range.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(_ACCEPTED)
    elif isinstance(value, str):
        seconds = _parse_text(value.strip())
    elif -LONGEST <= value <= LONGEST:
        seconds = float(value)
    else:  # out of range, infinite, or NaN
        raise ValueError(_ACCEPTED)
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"{_ACCEPTED}, from 0 to a century")
    return seconds


def format_duration(seconds: float) -> str:
    """Write a duration as `parse_duration` reads it, such as `90d`, `24h` or `1m30s`."""
    milliseconds = round(seconds * 1_000)
    whole, parts = milliseconds, []
    for unit, length in _SECONDS.items():
        amount, milliseconds = divmod(milliseconds, round(length * 1_000))
        if amount:
            parts.append(f"{amount}{unit}")
    if whole == _DAY:
        return "24h"
    return "".join(parts) if abs(whole / 1_000 - seconds) < 1e-9 and parts else f"{seconds:f}s"


def _parse_text(text: str) -> float:
    if 0 < len(text) <= _MAX_TEXT:
        if _NUMBER.fullmatch(text):
            return float(text)
        if amounts := _COMPOUND.fullmatch(text):
            return sum(
                float(amount) * _SECONDS[unit]
                for unit, amount in amounts.groupdict().items()
                if amount is not None
            )
    raise ValueError(_ACCEPTED)
