"""RateLimit: a number of requests per period with a burst, and the notation `100/hour`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from zlib import crc32

MICROSECONDS = 1_000_000

_LONGEST = 100 * 365 * 86_400 * MICROSECONDS

_PERIODS = {
    "second": 1,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "month": 30 * 86_400,
    "year": 360 * 86_400,
}
_NOTATION = re.compile(
    r"\s*(?P<count>\d{1,9})\s*(?:/|per\b)\s*(?:(?P<multiple>\d{1,6})\s*)?"
    r"(?P<unit>second|minute|hour|day|month|year)s?\s*",
    re.ASCII | re.IGNORECASE,
)
_KEY = re.compile(r"(\d+)/(\d+) (\d+) (.+)", re.ASCII | re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_.:/<>-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A bucket of `burst` tokens, refilled with `count` tokens every `period` seconds.

    In any window of `w` seconds at most `burst + count / period * w` requests pass.

    Attributes:
        count: tokens refilled in a period, at least 1.
        period: seconds, at least 1.
        burst: tokens in a full bucket, at least 1.
        name: the name in the `RateLimit` fields: 1 to 64 printable ASCII characters.
        scope: limits of the same scope, count, period and burst share their clients' buckets;
            by default the name.
        interval: microseconds in which one token is refilled, rounded up so that rounding
            never admits a request too many.
        tolerance: microseconds in which an empty bucket is refilled.
        key: identifies the limit; limits that share their clients' buckets have the same key.
            `read_key` reads it.
        quoted_name: the name as a String (RFC 9651 §3.3.3).
        policy_item: the limit's item in the `RateLimit-Policy` field.
        policy_field: the whole `RateLimit-Policy` field, if this is the only limit.
        legacy_field: the `X-RateLimit-Limit` field.
    """

    count: int
    period: int
    burst: int
    name: str = "default"
    scope: str = ""
    interval: int = field(init=False)
    tolerance: int = field(init=False)
    key: str = field(init=False, repr=False)
    quoted_name: str = field(init=False, repr=False)
    policy_item: str = field(init=False, repr=False)
    policy_field: tuple[str, str] = field(init=False, repr=False)
    legacy_field: tuple[str, str] = field(init=False, repr=False)

    @property
    def period_text(self) -> str:
        """The period as the notation has it, such as `minute` or `5 minutes`."""
        unit = max(
            (unit for unit, length in _PERIODS.items() if self.period % length == 0),
            key=_PERIODS.__getitem__,
        )
        multiple = self.period // _PERIODS[unit]
        return unit if multiple == 1 else f"{multiple} {unit}s"

    def __post_init__(self) -> None:
        numbers = (self.count, self.period, self.burst)
        if not all(type(number) is int and number >= 1 for number in numbers):
            raise ValueError(
                "a rate limit's count, period and burst must be whole numbers of at least 1, "
                f"found {numbers!a}"
            )
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!a} cannot name a rate limit: use 1 to 64 letters, digits and _.:/<>-"
            )
        interval = -(-self.period * MICROSECONDS // self.count)
        if interval * self.burst > _LONGEST:
            raise ValueError(
                "an empty bucket must be full again within 100 years: lower the rate limit's "
                "burst or period"
            )
        quoted_name = f'"{self.name}"'
        policy_item = f"{quoted_name};q={self.count};w={self.period}"
        scope = self.scope or self.name
        for name, value in (
            ("interval", interval),
            ("tolerance", interval * self.burst),
            ("scope", scope),
            ("key", f"{self.count}/{self.period} {self.burst} {scope}"),
            ("quoted_name", quoted_name),
            ("policy_item", policy_item),
            ("policy_field", ("RateLimit-Policy", policy_item)),
            ("legacy_field", ("X-RateLimit-Limit", str(self.count))),
        ):
            object.__setattr__(self, name, value)

    @property
    def most_in_a_period(self) -> int:
        """The highest number of requests that any single period can admit."""
        return self.burst + self.count - 1


def read_key(key: str) -> RateLimit:
    """Return a limit with this key.

    Raises:
        ValueError: the text is not the key of a limit.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError("no rate limit has this key")
    count, period, burst = (int(number) for number in match.groups()[:3])
    return RateLimit(count, period, burst, limit_name(match[4]), match[4])


def limit_name(text: str) -> str:
    """Make a limit's name from any text; different texts get different names."""
    if _NAME.fullmatch(text):
        return text
    return f"{re.sub('[^A-Za-z0-9_.-]', '-', text)[:48]}-{crc32(text.encode()):08x}"


@lru_cache(maxsize=1024)
def parse_limits(
    notation: str, *, burst: int | None = None, name: str = "default", scope: str = ""
) -> tuple[RateLimit, ...]:
    """Parse `100/hour`, `10 per 5 minutes`, or several limits separated by `;`, `,` or `|`.

    Args:
        notation: the limits, in Flask-Limiter's notation.
        burst: tokens in a full bucket; by default each limit's count.
        name: the first limit's name; the others get the same name with a number behind it.
        scope: the limits' scope; by default the name.

    Raises:
        ValueError: the text is not in this notation.
    """
    limits: list[RateLimit] = []
    for part in re.split("[;,|]", notation):
        match = _NOTATION.fullmatch(part)
        if match is None:
            raise ValueError(
                f"{notation[:80]!a} is not a rate limit: write '100/hour' or '10 per 5 minutes', "
                "and separate several limits with ';'"
            )
        count = int(match["count"])
        period = int(match["multiple"] or 1) * _PERIODS[match["unit"].lower()]
        own_name = limit_name(f"{name}:{len(limits) + 1}") if limits else name
        own_burst = count if burst is None else burst
        own_scope = f"{scope or name} part {len(limits) + 1}"
        limits.append(RateLimit(count, period, own_burst, own_name, own_scope))
    return tuple(limits)
