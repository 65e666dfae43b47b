"""GCRA, the generic cell rate algorithm: a token bucket without a timer (ITU-T I.371, annex A).

A client's whole state is one number, its theoretical arrival time (TAT): the moment at which its
bucket is full again. All times are integer microseconds of one clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from .limit import MICROSECONDS, RateLimit


@dataclass(slots=True)
class Hit:
    """The result of taking tokens from a bucket.

    Attributes:
        limit: the bucket's limit.
        admitted: whether the bucket had enough tokens.
        remaining: whole tokens left.
        next_token: whole seconds, rounded up, until the bucket has one more token; for a refused
            request, until it has as many as the request asked for.
        full_after: whole seconds, rounded up, until the bucket is full.
    """

    limit: RateLimit
    admitted: bool
    remaining: int
    next_token: int
    full_after: int

    @property
    def item(self) -> str:
        """The item for this result in the `RateLimit` field."""
        return f"{self.limit.quoted_name};r={self.remaining};t={self.next_token}"


def admitted(limit: RateLimit, tat: int, now: int) -> Hit:
    """Return the result for a request that was admitted.

    Args:
        limit: the bucket's limit.
        tat: the theoretical arrival time after the tokens were taken.
        now: the current time.
    """
    remaining, towards_next = divmod(now + limit.tolerance - tat, limit.interval)
    # -(-x // y) is x / y rounded up.
    return Hit(
        limit,
        True,
        remaining,
        -((towards_next - limit.interval) // MICROSECONDS),
        -((now - tat) // MICROSECONDS),
    )


def refused(limit: RateLimit, tat: int, now: int, cost: int) -> Hit:
    """Return the result for a request that asked for more tokens than the bucket has."""
    surplus = now + limit.tolerance - tat
    return Hit(
        limit,
        False,
        surplus // limit.interval,
        -((surplus - cost * limit.interval) // MICROSECONDS),
        -((now - tat) // MICROSECONDS),
    )


def known(limit: RateLimit, tat: int, now: int) -> int:
    """Return the stored theoretical arrival time if it is possible, and now if it is not.

    A time in the past means a full bucket. A time further ahead than the limit's tolerance cannot
    come from this algorithm (a damaged store, a clock that stepped back) and also counts as a full
    bucket, so that no client is blocked for longer than a full bucket takes to drain.
    """
    return tat if now < tat <= now + limit.tolerance else now


def take(limit: RateLimit, tat: int, now: int, cost: int = 1) -> tuple[int, Hit]:
    """Take `cost` tokens from the bucket with this theoretical arrival time.

    Returns:
        The new theoretical arrival time (unchanged if the request is refused), and the result.
    """
    if not now < tat <= now + limit.tolerance:
        tat = now  # the rule of `known`, without the call
    new_tat = tat + cost * limit.interval
    if new_tat > now + limit.tolerance:
        return tat, refused(limit, tat, now, cost)
    return new_tat, admitted(limit, new_tat, now)


def look(limit: RateLimit, tat: int, now: int) -> Hit:
    """Return the result that a request of one token would get, and take nothing."""
    tat = known(limit, tat, now)
    if tat + limit.interval > now + limit.tolerance:
        return refused(limit, tat, now, 1)
    return admitted(limit, tat, now)


def give_back(limit: RateLimit, tat: int, now: int, cost: int = 1) -> int:
    """Return the theoretical arrival time after `cost` tokens were put back."""
    return max(now, known(limit, tat, now) - cost * limit.interval)
