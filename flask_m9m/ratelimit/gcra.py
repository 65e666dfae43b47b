"""The generic cell rate algorithm: a token bucket without a timer (ITU-T I.371, annex A).

The whole state of a client is one number, its theoretical arrival time (TAT): the moment at
which its bucket is full again. All times are integer microseconds of one clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from .limit import MICROSECONDS, RateLimit


@dataclass(slots=True)
class Hit:
    """What came of taking tokens from a bucket.

    Attributes:
        limit: whose bucket it is.
        admitted: whether the tokens were there.
        remaining: whole tokens left.
        next_token: whole seconds, rounded up, until there is one token more; for a refused
            request until there are as many as it asked for.
        full_after: whole seconds, rounded up, until the bucket is full.
    """

    limit: RateLimit
    admitted: bool
    remaining: int
    next_token: int
    full_after: int

    @property
    def item(self) -> str:
        """Its item in the `RateLimit` field."""
        return f"{self.limit.quoted_name};r={self.remaining};t={self.next_token}"


def give_back(limit: RateLimit, tat: int, now: int, cost: int = 1) -> int:
    """Return the theoretical arrival time as if `cost` tokens had not been taken."""
    return max(now, tat - cost * limit.interval)


def take(limit: RateLimit, tat: int, now: int, cost: int = 1) -> tuple[int, Hit]:
    """Take `cost` tokens from the bucket with this theoretical arrival time.

    A TAT further ahead than the limit's tolerance cannot come from this algorithm (a damaged
    store, a clock that stepped back) and counts as a full bucket, so that nobody is shut out
    for longer than a full bucket takes to drain.

    Returns:
        The new theoretical arrival time, the old one where the request is refused, and what
        came of it.
    """
    if not now < tat <= now + limit.tolerance:
        tat = now
    new_tat = tat + cost * limit.interval
    surplus = now + limit.tolerance - new_tat
    if surplus < 0:
        # -(-x // y) is x / y, rounded up.
        remaining = (now + limit.tolerance - tat) // limit.interval
        return tat, Hit(
            limit, False, remaining, -(surplus // MICROSECONDS), -((now - tat) // MICROSECONDS)
        )
    remaining, towards_next = divmod(surplus, limit.interval)
    return new_tat, Hit(
        limit,
        True,
        remaining,
        -((towards_next - limit.interval) // MICROSECONDS),
        -((now - new_tat) // MICROSECONDS),
    )
