"""Metrics: which counters a request adds to; labels that no client can choose."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from functools import lru_cache

from ...errors import (
    InternalError,
    LimitsUnavailable,
    M9MError,
    RateLimited,
    ServiceUnavailable,
    TooManyAttempts,
)
from ...processes.forking import fork_safe_lock
from ...ratelimit.store import LimitStore
from ...ratelimit.stores import LimitStores
from ...settings.models import RateLimitSettings
from ..exchange import Exchange
from .counts import Counts

Amount = tuple[str, int]
"""The key of a count, and the number to add to it."""

BOUNDS = tuple(
    bound * 1_000
    for bound in (5, 10, 20, 30, 50, 75, 100, 200, 500, 1_000, 5_000, 20_000, 100_000, 500_000)
)
"""The upper bounds of the histogram's buckets, in nanoseconds; one more bucket has no bound."""

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
_IN_BUCKET = tuple((bucket, 1) for bucket in BUCKETS)


class Metrics:
    """Counts the outcomes of an app's requests.

    Args:
        counts: the counters.
        stores: the app's stores of rate limits, whose failures are counted.
    """

    timed = True

    def __init__(self, counts: Counts, stores: LimitStores) -> None:
        self._counts = counts
        self._stores = (("rate_limits", stores.limits, [0]), ("attempts", stores.attempts, [0]))
        self._outcome_amounts = lru_cache(1_024)(self._make_outcome_amounts)
        self._lock = fork_safe_lock()
        self._values: dict[str, dict[str, str]] = {}

    def note_exchange(self, exchange: Exchange, status: str) -> None:
        """Count an exchange whose response has this status."""
        error, spent = exchange.refusal, exchange.guard_nanoseconds
        amounts = (
            (GUARD_SUM, spent),
            _IN_BUCKET[bisect_left(BOUNDS, spent)],
            *self._outcome_amounts(
                status[:1],
                None if error is None else error.error_code,
                exchange.ended,
                exchange.scheme,
                exchange.proved_identity is not None,
            ),
        )
        if error is not None and exchange.ended:
            amounts += self._refusal_amounts(error, exchange)
        for name, store, seen in self._stores:
            if store.failures != seen[0]:
                amounts += self._failure_amounts(name, store, seen)
        self._counts.add(amounts)

    def _make_outcome_amounts(
        self, digit: str, code: str | None, ended: bool, scheme: str | None, proved: bool
    ) -> tuple[Amount, ...]:
        """Return the counter increments for exchanges with the same outcome."""
        outcome, label = "answered", ""
        if code == InternalError.error_code or (digit == "5" and not (code and ended)):
            outcome = "failed"
        elif code is not None and ended:
            outcome, label = "refused", code
        amounts = ((self._key(REQUESTS, outcome, label, f"{digit}xx"), 1),)
        if scheme is None:
            return amounts
        result = "succeeded" if proved or code is None else code
        return (*amounts, (self._key(AUTHENTICATIONS, scheme, result), 1))

    def note_shadow_refusal(self, limit: str) -> None:
        """Count a request that the `shadow` limit of this name would have refused."""
        self._counts.add([(self._key(SHADOW_LIMITED, limit), 1)])

    def totals(self) -> Counter[str]:
        """Return the counts of all processes.

        Raises:
            OSError: other processes hold the lock for too long, or the files cannot be read.
        """
        for name, store, seen in self._stores:
            self._counts.add(self._failure_amounts(name, store, seen))
        return self._counts.totals()

    def _refusal_amounts(self, refusal: M9MError, exchange: Exchange) -> tuple[Amount, ...]:
        if isinstance(refusal, RateLimited):
            names = [hit.limit.name for hit in exchange.hits if not hit.admitted]
            return tuple((self._key(RATE_LIMITED, name), 1) for name in names[-1:])
        if isinstance(refusal, TooManyAttempts):
            return ((LOCKOUTS, 1),)
        if isinstance(refusal, ServiceUnavailable) and not isinstance(refusal, LimitsUnavailable):
            return ((self._key(STORE_FAILURES, "database"), 1),)
        return ()

    def _failure_amounts(self, name: str, store: LimitStore, seen: list[int]) -> tuple[Amount, ...]:
        with self._lock:
            new = store.failures - seen[0]
            seen[0] += new
        return ((self._key(STORE_FAILURES, name), new),) if new else ()

    def _key(self, family: str, *labels: str) -> str:
        return SEPARATOR.join((family, *(self._bounded(family, label) for label in labels)))

    def _bounded(self, family: str, value: str) -> str:
        """Return a label's value, or `other` if its family has too many values."""
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
    """Make an app's metrics; opens no file yet.

    Args:
        settings: `path` is the directory of the machine's shared files.
        app: identifies the app: its import name and instance path.
        stores: the app's stores of rate limits.
        private: whether to count in this object alone, as in a test.
    """
    files = None
    if not private:
        try:
            from ...processes.shared_directory import SharedDirectory
            from .count_files import CountFiles
        except ImportError:  # no fcntl: each process counts alone
            pass
        else:
            files = CountFiles(SharedDirectory(settings.path, app))
    return Metrics(Counts(files), stores)
