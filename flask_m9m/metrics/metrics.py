"""Metrics: what is counted of each exchange, under labels that no client can choose."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from .. import forking
from ..errors import (
    InternalError,
    LimitsUnavailable,
    RateLimited,
    ServiceUnavailable,
    TooManyAttempts,
)
from ..exchange import Exchange
from ..ratelimit import LimitStores
from ..settings import RateLimitSettings
from .counts import Counts

BOUNDS = tuple(
    bound * 1_000
    for bound in (5, 10, 20, 30, 50, 75, 100, 200, 500, 1_000, 5_000, 20_000, 100_000, 500_000)
)
"""Of the histogram's buckets, in nanoseconds; above the last one nothing is told apart."""

SEPARATOR = "\x1f"
REQUESTS = "requests"
AUTHENTICATIONS = "authentications"
RATE_LIMITED = "rate_limited"
SHADOW_LIMITED = "shadow_limited"
LOCKOUTS = "lockouts"
STORE_FAILURES = "store_failures"
GUARD_BUCKET = "guard_bucket"
GUARD_SUM = "guard_sum"

_MOST_VALUES = 64
_OTHER = "other"
BUCKETS = tuple(f"{GUARD_BUCKET}{SEPARATOR}{bound}" for bound in (*BOUNDS, "inf"))


class Metrics:
    """Counts what becomes of an app's requests.

    Args:
        counts: where.
        stores: the app's stores of rate limits, whose failures are counted.
    """

    def __init__(self, counts: Counts, stores: LimitStores) -> None:
        self._counts = counts
        self._stores = tuple(zip(("rate_limits", "attempts"), stores, strict=True))
        self._seen = [0] * len(self._stores)
        self._lock = forking.lock(self)
        self._values: dict[str, dict[str, str]] = {}

    def ended(self, exchange: Exchange, status: str) -> None:
        """Count an exchange whose answer goes out under this status."""
        refusal = exchange.refusal if exchange.ended else None
        outcome, code = "answered", ""
        if isinstance(refusal, InternalError) or (refusal is None and status[:1] == "5"):
            outcome = "failed"
        elif refusal is not None:
            outcome, code = "refused", self._bounded("code", refusal.error_code)
        spent = exchange.spent
        amounts = [
            (f"{REQUESTS}\x1f{outcome}\x1f{code}\x1f{status[:1]}xx", 1),
            (BUCKETS[bisect_left(BOUNDS, spent)], 1),
            (GUARD_SUM, spent),
        ]
        if exchange.tried is not None:
            error = exchange.refusal
            result = "succeeded" if error is None or exchange.proved else error.error_code
            amounts.append((self._key(AUTHENTICATIONS, exchange.tried, result), 1))
        if refusal is not None:
            self._add_refusal(amounts, exchange)
        self._add_failures(amounts)
        self._counts.add(amounts)

    def tried_out(self, limit: str) -> None:
        """Count a request that a limit with `shadow` would have refused."""
        self._counts.add([(self._key(SHADOW_LIMITED, limit), 1)])

    def totals(self) -> Counter[str]:
        """Return what all processes have counted.

        Raises:
            OSError: it cannot be told now.
        """
        amounts: list[tuple[str, int]] = []
        self._add_failures(amounts)
        self._counts.add(amounts)
        return self._counts.totals()

    def _add_refusal(self, amounts: list[tuple[str, int]], exchange: Exchange) -> None:
        refusal = exchange.refusal
        if isinstance(refusal, RateLimited):
            names = [hit.limit.name for hit in exchange.hits if not hit.admitted]
            amounts += [(self._key(RATE_LIMITED, name), 1) for name in names[-1:]]
        elif isinstance(refusal, TooManyAttempts):
            amounts.append((LOCKOUTS, 1))
        elif isinstance(refusal, ServiceUnavailable) and not isinstance(refusal, LimitsUnavailable):
            amounts.append((self._key(STORE_FAILURES, "database"), 1))

    def _add_failures(self, amounts: list[tuple[str, int]]) -> None:
        for number, (name, store) in enumerate(self._stores):
            if store.failures != self._seen[number]:
                with self._lock:
                    new = store.failures - self._seen[number]
                    self._seen[number] += new
                amounts.append((self._key(STORE_FAILURES, name), new))

    def _key(self, family: str, *labels: str) -> str:
        return SEPARATOR.join((family, *(self._bounded(family, label) for label in labels)))

    def _bounded(self, family: str, value: str) -> str:
        """Return a label's value, or a stand-in where the app has made too many of a kind."""
        values = self._values.setdefault(family, {})
        known = values.get(value)
        if known is None:
            if len(values) >= _MOST_VALUES:
                return _OTHER
            printable = value.replace(SEPARATOR, " ").encode("ascii", "backslashreplace")
            known = values[value] = printable.decode()
        return known


def make_metrics(
    settings: RateLimitSettings, app: tuple[str, str], stores: LimitStores, *, private: bool
) -> Metrics:
    """Make an app's metrics; nothing is opened yet.

    Args:
        settings: where the machine's files lie.
        app: what tells the app from others: its import name and instance path.
        stores: its stores of rate limits.
        private: whether this object of an app counts alone, as in a test.
    """
    files = None
    if not private:
        try:
            from ..ratelimit.directory import Directory
            from .files import CountFiles
        except ImportError:  # no fcntl: each process counts alone
            pass
        else:
            files = CountFiles(Directory(settings.path, app))
    return Metrics(Counts(files), stores)
