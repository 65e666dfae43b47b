"""Failover: a circuit breaker for stores of rate limits, and the policy while a store fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Literal, TypeVar

from ..processes.forking import fork_safe_lock
from ..processes.quiet import Quiet
from .gcra import Hit, look
from .limit import RateLimit
from .store import LimitStore, Spender, StoreFailure, Want

logger = logging.getLogger("flask_m9m")

PROBE_EVERY = 2.0
"""Seconds between two requests that may ask a store that failed."""

_LOG_EVERY = 30.0  # seconds between two log lines

T = TypeVar("T")
Policy = Literal["local", "closed", "open"]


class Answer(Enum):
    """What an answer says about its store: it works, it works again, or it is too slow."""

    GOOD = "good"
    RECOVERED = "recovered"
    TOO_SLOW = "too slow"


class FailureLog:
    """Logs that a store fails, at intervals, and once that it works again.

    Args:
        clock: a monotonic clock, in seconds.

    Attributes:
        failing: whether the last line said that the store fails.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.failing = False
        self._quiet = Quiet(_LOG_EVERY, clock)

    def note_failure(self, policy: Policy, failure: StoreFailure, failures: int) -> None:
        """Log a failure, unless there was a line about this policy a moment ago."""
        if self._quiet.record(policy):
            self.failing = True
            logger.warning(
                "rate limits: the store fails, so %s: %s (%d failures so far)",
                _CONSEQUENCES[policy],
                failure,
                failures,
            )

    def note_recovery(self) -> None:
        """Log that the store works again, if a line said that it fails."""
        if self.failing:
            self.failing = False
            logger.warning("rate limits: the store works again")


class Breaker:
    """A circuit breaker: keeps requests from a store that failed, except a probe at intervals.

    Args:
        probe_every: seconds between two probes.
        clock: a monotonic clock, in seconds.

    Attributes:
        log: the log of the stores that share the breaker: any of them may find the store working.
    """

    def __init__(
        self, probe_every: float = PROBE_EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._probe_every = probe_every
        self._clock = clock
        self._tripped = False
        self._slow = False
        self._probe_at = 0.0
        self._lock = fork_safe_lock()
        self.log = FailureLog(clock)

    def lets_through(self) -> bool:
        """Tell whether this request may ask the store."""
        if not self._tripped:
            return True
        with self._lock:
            now = self._clock()
            if self._tripped and now < self._probe_at:
                return False
            self._probe_at = now + self._probe_every
            return True

    def note_failure(self) -> None:
        """Record that the store failed."""
        with self._lock:
            self._tripped = True
            self._probe_at = self._clock() + self._probe_every

    def note_answer(self, slow: bool) -> Answer:
        """Record that the store answered.

        Returns:
            What follows: two slow answers in a row count as a failure, and so does a slow answer
            to a probe.
        """
        if not slow and not self._tripped:
            self._slow = False
            return Answer.GOOD
        with self._lock:
            if not slow:
                recovered, self._tripped, self._slow = self._tripped, False, False
                return Answer.RECOVERED if recovered else Answer.GOOD
            if not self._slow and not self._tripped:
                self._slow = True
                return Answer.GOOD
            self._slow = self._tripped = True
            self._probe_at = self._clock() + self._probe_every
            return Answer.TOO_SLOW


class Failover(LimitStore):
    """A store with a policy for its failures.

    Args:
        primary: the store.
        fallback: the store that counts under the policy `local`.
        policy: `local`: the fallback counts, with this machine's share of each limit; `closed`:
            the failure is raised, and the request is refused; `open`: the request passes.
        machines: how many machines share the limits.
        breaker: saves requests the wait for a store that fails; without a breaker, every request
            asks the store.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        primary: LimitStore,
        fallback: LimitStore,
        policy: Policy,
        *,
        machines: int = 1,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.shared = primary.shared
        self.where = primary.where
        self._primary = primary
        self._fallback = fallback
        self._policy = policy
        self._machines = machines
        self._breaker = breaker
        self._clock = clock
        self.failures = 0
        self._log = FailureLog(clock) if breaker is None else breaker.log
        self._lock = fork_safe_lock()

    def prepare(self, limits: Iterable[RateLimit]) -> None:
        """Check, as far as possible, that the store can keep these limits."""
        self._primary.prepare(limits)

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""
        if self._breaker is None:  # the store of most apps
            try:
                hit = self._primary.hit(limit, client, cost)
            except StoreFailure as failure:
                self._handle_failure(failure)
                return self._hit_without_store(limit, client, cost)
            if self._log.failing:
                self._log.note_recovery()
            return hit
        return self._ask_or_fall_back(
            lambda: self._primary.hit(limit, client, cost),
            lambda: self._hit_without_store(limit, client, cost),
        )

    def hit_all(self, wants: Sequence[Want]) -> list[Hit]:
        """Take tokens from several buckets, up to the first that has too few."""
        return self._ask_or_fall_back(
            lambda: self._primary.hit_all(wants), lambda: self._hit_all_without_store(wants)
        )

    def _ask_or_fall_back(self, ask: Callable[[], T], fall_back: Callable[[], T]) -> T:
        """Ask the store if the breaker allows it; fall back if not, or if the store fails."""
        breaker = self._breaker
        if breaker is None or breaker.lets_through():
            try:
                answer = ask()
            except StoreFailure as failure:
                self._handle_failure(failure)
            else:
                self._note_answer()
                return answer
        return fall_back()

    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        """Put back tokens that were taken, if possible."""
        self._ask_or_fall_back(
            lambda: self._primary.refund(limit, client, cost),
            lambda: self._refund_without_store(limit, client, cost),
        )

    def peek(self, limit: RateLimit, client: str) -> Hit:
        """Return the result that the client's next request would get, and take nothing."""
        return self._primary.peek(limit, client)

    def reset(self, limit: RateLimit, client: str) -> None:
        """Fill the client's bucket."""
        self._primary.reset(limit, client)

    def client_id(self, limit: RateLimit, client: str) -> str:
        """Return the store's identifier of a client."""
        return self._primary.client_id(limit, client)

    def spenders(self) -> Iterable[Spender]:
        """Return the clients whose buckets are not full, in no order."""
        return self._primary.spenders()

    def _hit_without_store(self, limit: RateLimit, client: str, cost: int) -> Hit:
        if self._policy == "local":
            return self._fallback.hit(*self._share(limit, client, cost))
        if self._policy == "closed":
            raise StoreFailure("the store failed a moment ago")
        return look(limit, 0, 0)

    def _refund_without_store(self, limit: RateLimit, client: str, cost: int) -> None:
        if self._policy == "local":
            self._fallback.refund(*self._share(limit, client, cost))

    def _hit_all_without_store(self, wants: Sequence[Want]) -> list[Hit]:
        if self._policy == "local":
            return self._fallback.hit_all([self._share(*want) for want in wants])
        return [self._hit_without_store(*want) for want in wants]

    def _share(self, limit: RateLimit, client: str, cost: int) -> Want:
        share = share_of(limit, self._machines)
        return Want(share, client, min(cost, share.burst))

    def _handle_failure(self, failure: StoreFailure) -> None:
        """Record a failure, and raise it if no fallback is safe."""
        self._record_failure(failure)
        if failure.unsafe:
            raise failure

    def _record_failure(self, failure: StoreFailure) -> None:
        if self._breaker is not None:
            self._breaker.note_failure()
        self._count_failure(failure)

    def _count_failure(self, failure: StoreFailure) -> None:
        with self._lock:
            self.failures += 1
        policy = "closed" if failure.unsafe else self._policy
        self._log.note_failure(policy, failure, self.failures)

    def _note_answer(self) -> None:
        if self._breaker is None:
            self._log.note_recovery()
            return
        slow = self._primary.was_slow()
        answer = Answer.GOOD if slow is None else self._breaker.note_answer(slow)
        if answer is Answer.RECOVERED:
            self._log.note_recovery()
        elif answer is Answer.TOO_SLOW:
            self._count_failure(StoreFailure("it answers too slowly"))


_CONSEQUENCES: Mapping[Policy, str] = {
    "local": "this machine or process counts alone",
    "closed": "requests are refused",
    "open": "requests are not limited",
}


@lru_cache(maxsize=1024)
def share_of(limit: RateLimit, machines: int) -> RateLimit:
    """Return one machine's share of a limit, with a burst of at least 1."""
    if machines == 1:
        return limit
    count, period = limit.count, limit.period
    if count % machines:
        period *= machines
    else:
        count //= machines
    burst = max(1, limit.burst // machines)
    return RateLimit(count, period, burst, limit.name, limit.scope)
