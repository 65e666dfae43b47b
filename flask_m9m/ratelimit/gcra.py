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


def admitted(limit: RateLimit, tat: int, now: int) -> Hit:
    """Return what a request that was let through is told.

    Args:
        limit: whose bucket it is.
        tat: the theoretical arrival time that its tokens have led to.
        now: the time.
    """
    remaining, towards_next = divmod(now + limit.tolerance - tat, limit.interval)
    # -(-x // y) is x / y, rounded up.
    return Hit(
        limit,
        True,
        remaining,
        -((towards_next - limit.interval) // MICROSECONDS),
        -((now - tat) // MICROSECONDS),
    )


def refused(limit: RateLimit, tat: int, now: int, cost: int) -> Hit:
    """Return what a request is told that asked for more tokens than there are."""
    surplus = now + limit.tolerance - tat
    return Hit(
        limit,
        False,
        surplus // limit.interval,
        -((surplus - cost * limit.interval) // MICROSECONDS),
        -((now - tat) // MICROSECONDS),
    )


def known(limit: RateLimit, tat: int, now: int) -> int:
    """Return a stored theoretical arrival time as it counts now, no earlier than now.

    One further ahead than the limit's tolerance cannot come from this algorithm (a damaged
    store, a clock that stepped back) and counts as a full bucket, so that nobody is shut out
    for longer than a full bucket takes to drain.
    """
    return tat if now < tat <= now + limit.tolerance else now


def take(limit: RateLimit, tat: int, now: int, cost: int = 1) -> tuple[int, Hit]:
    """Take `cost` tokens from the bucket with this theoretical arrival time.

    Returns:
        The new theoretical arrival time, the old one where the request is refused, and what
        came of it.
    """
    if not now < tat <= now + limit.tolerance:
        tat = now  # as `known` has it
    new_tat = tat + cost * limit.interval
    if new_tat > now + limit.tolerance:
        return tat, refused(limit, tat, now, cost)
    return new_tat, admitted(limit, new_tat, now)


def look(limit: RateLimit, tat: int, now: int) -> Hit:
    """Return what a request of one token would be told, and take nothing."""
    tat = known(limit, tat, now)
    if tat + limit.interval > now + limit.tolerance:
        return refused(limit, tat, now, 1)
    return admitted(limit, tat, now)


def give_back(limit: RateLimit, tat: int, now: int, cost: int = 1) -> int:
    """Return the theoretical arrival time as if `cost` tokens had not been taken."""
    return max(now, known(limit, tat, now) - cost * limit.interval)
