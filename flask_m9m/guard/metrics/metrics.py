"""Metrics: what is counted of each exchange, under labels that no client can choose."""

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
"""The key of a count, and what is added to it."""

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
_IN_BUCKET = tuple((bucket, 1) for bucket in BUCKETS)


class Metrics:
    """Counts what becomes of an app's requests.

    Args:
        counts: where.
        stores: the app's stores of rate limits, whose failures are counted.
    """

    timed = True

    def __init__(self, counts: Counts, stores: LimitStores) -> None:
        self._counts = counts
        self._stores = (("rate_limits", stores.limits, [0]), ("attempts", stores.attempts, [0]))
        self._usual = lru_cache(1_024)(self._make_usual)
        self._lock = fork_safe_lock()
        self._values: dict[str, dict[str, str]] = {}

    def note_exchange(self, exchange: Exchange, status: str) -> None:
        """Count an exchange whose answer goes out under this status."""
        error, spent = exchange.refusal, exchange.guard_nanoseconds
        amounts = (
            (GUARD_SUM, spent),
            _IN_BUCKET[bisect_left(BOUNDS, spent)],
            *self._usual(
                status[:1],
                None if error is None else error.error_code,
                exchange.ended,
                exchange.scheme,
                exchange.proved_identity is not None,
            ),
        )
        if error is not None and exchange.ended:
            amounts += self._of_refusal(error, exchange)
        for name, store, seen in self._stores:
            if store.failures != seen[0]:
                amounts += self._of_failures(name, store, seen)
        self._counts.add(amounts)

    def _make_usual(
        self, digit: str, code: str | None, ended: bool, tried: str | None, proved: bool
    ) -> tuple[Amount, ...]:
        """Return what exchanges that went alike add: the request, and the credential if any."""
        outcome, label = "answered", ""
        if code == InternalError.error_code or (digit == "5" and not (code and ended)):
            outcome = "failed"
        elif code is not None and ended:
            outcome, label = "refused", code
        amounts = ((self._key(REQUESTS, outcome, label, f"{digit}xx"), 1),)
        if tried is None:
            return amounts
        result = "succeeded" if proved or code is None else code
        return (*amounts, (self._key(AUTHENTICATIONS, tried, result), 1))

    def note_shadow_refusal(self, limit: str) -> None:
        """Count a request that a limit with `shadow` would have refused."""
        self._counts.add([(self._key(SHADOW_LIMITED, limit), 1)])

    def totals(self) -> Counter[str]:
        """Return what all processes have counted.

        Raises:
            OSError: it cannot be told now.
        """
        for name, store, seen in self._stores:
            self._counts.add(self._of_failures(name, store, seen))
        return self._counts.totals()

    def _of_refusal(self, refusal: M9MError, exchange: Exchange) -> tuple[Amount, ...]:
        if isinstance(refusal, RateLimited):
            names = [hit.limit.name for hit in exchange.hits if not hit.admitted]
            return tuple((self._key(RATE_LIMITED, name), 1) for name in names[-1:])
        if isinstance(refusal, TooManyAttempts):
            return ((LOCKOUTS, 1),)
        if isinstance(refusal, ServiceUnavailable) and not isinstance(refusal, LimitsUnavailable):
            return ((self._key(STORE_FAILURES, "database"), 1),)
        return ()

    def _of_failures(self, name: str, store: LimitStore, seen: list[int]) -> tuple[Amount, ...]:
        with self._lock:
            new = store.failures - seen[0]
            seen[0] += new
        return ((self._key(STORE_FAILURES, name), new),) if new else ()

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
            from ...processes.shared_directory import SharedDirectory
            from .count_files import CountFiles
        except ImportError:  # no fcntl: each process counts alone
            pass
        else:
            files = CountFiles(SharedDirectory(settings.path, app))
    return Metrics(Counts(files), stores)
