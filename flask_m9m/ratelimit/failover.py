"""Failover: what holds while a store of rate limits fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, TypeVar

from .. import forking
from .gcra import Hit, look
from .limit import RateLimit
from .store import LimitStore, Spender, StoreFailure, Want

logger = logging.getLogger("flask_m9m")

PROBE_EVERY = 2.0
"""Seconds between attempts at a store that failed."""

SLOW = 0.08
"""Seconds after which an answer is slow; two slow ones running count as a failure."""

_SAY_EVERY = 30.0

T = TypeVar("T")
Policy = Literal["local", "closed", "open"]


class Breaker:
    """Keeps requests away from a store that failed, but for one every now and then.

    Args:
        probe_every: seconds.
        clock: seconds of a clock that never steps back.
    """

    def __init__(
        self, probe_every: float = PROBE_EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._probe_every = probe_every
        self._clock = clock
        self._tripped = False
        self._slow = False
        self._probe_at = 0.0
        self._lock = forking.lock(self)

    def lets_through(self) -> bool:
        """Tell whether the store may be asked now."""
        if not self._tripped:
            return True
        with self._lock:
            now = self._clock()
            if self._tripped and now < self._probe_at:
                return False
            self._probe_at = now + self._probe_every
            return True

    def failed(self) -> None:
        """Note that the store failed."""
        with self._lock:
            self._tripped = True
            self._probe_at = self._clock() + self._probe_every

    def answered(self, seconds: float) -> bool:
        """Note that the store answered after so many seconds.

        Returns:
            Whether requests can be sent there again that could not before.
        """
        slow = seconds > SLOW
        if not slow and not self._tripped:
            self._slow = False
            return False
        with self._lock:
            if slow and self._slow:  # twice running
                self._tripped = True
                self._probe_at = self._clock() + self._probe_every
                return False
            recovered = self._tripped and not slow
            self._slow = slow
            self._tripped = self._tripped and slow
            return recovered


class Failover(LimitStore):
    """A store, and what is done where it fails.

    Args:
        primary: the store.
        fallback: the one of which `local` asks the machine's share.
        policy: `local`; `closed`: the failure goes on, and the request is refused; `open`: the
            request passes.
        machines: how many machines share the limits.
        breaker: spares requests the wait for a store that fails; left out, each one asks it.
        clock: seconds of a clock that never steps back.
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
        self._say_at = 0.0
        self._said = False
        self._lock = forking.lock(self)

    def prepare(self, limits: Iterable[RateLimit]) -> None:
        """Make sure, as far as it can be told, that these limits can be kept."""
        self._primary.prepare(limits)

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""
        if self._breaker is None:  # the store of most apps
            try:
                return self._primary.hit(limit, client, cost)
            except StoreFailure as failure:
                self._failed(failure)
                return self._instead(limit, client, cost)
        return self._watched(
            lambda: self._primary.hit(limit, client, cost),
            lambda: self._instead(limit, client, cost),
        )

    def hit_all(self, wants: Sequence[Want]) -> list[Hit]:
        """Take what a request needs of several buckets, up to the first that has too little."""
        return self._watched(lambda: self._primary.hit_all(wants), lambda: self._all_instead(wants))

    def _watched(self, ask: Callable[[], T], instead: Callable[[], T]) -> T:
        """Ask the store as far as the breaker lets this request through."""
        breaker = self._breaker
        if breaker is None or breaker.lets_through():
            begun = self._clock()
            try:
                answer = ask()
            except StoreFailure as failure:
                self._failed(failure)
            else:
                if breaker is not None and breaker.answered(self._clock() - begun):
                    self._recovered()
                return answer
        return instead()

    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        """Put tokens back that were taken, where that can be done."""
        if self._breaker is None or self._breaker.lets_through():
            try:
                self._primary.refund(limit, client, cost)
            except StoreFailure as failure:
                self._note(failure)
            else:
                return
        if self._policy == "local":
            self._fallback.refund(*self._share(limit, client, cost))

    def peek(self, limit: RateLimit, client: str) -> Hit:
        """Return what the client's next request would be told, and take nothing."""
        return self._primary.peek(limit, client)

    def reset(self, limit: RateLimit, client: str) -> None:
        """Fill the client's bucket."""
        self._primary.reset(limit, client)

    def client_id(self, limit: RateLimit, client: str) -> str:
        """Return by what the store knows a client."""
        return self._primary.client_id(limit, client)

    def spenders(self) -> Iterable[Spender]:
        """Return, in no order, whose buckets are not full."""
        return self._primary.spenders()

    def _instead(self, limit: RateLimit, client: str, cost: int) -> Hit:
        if self._policy == "local":
            return self._fallback.hit(*self._share(limit, client, cost))
        if self._policy == "closed":
            raise StoreFailure("it failed a moment ago")
        return look(limit, 0, 0)

    def _all_instead(self, wants: Sequence[Want]) -> list[Hit]:
        if self._policy == "local":
            return self._fallback.hit_all([self._share(*want) for want in wants])
        return [self._instead(*want) for want in wants]

    def _share(self, limit: RateLimit, client: str, cost: int) -> Want:
        share = share_of(limit, self._machines)
        return Want(share, client, min(cost, share.burst))

    def _failed(self, failure: StoreFailure) -> None:
        """Note a failure, and let it go on where nothing is to be done instead."""
        self._note(failure)
        if failure.unsafe:
            raise failure

    def _note(self, failure: StoreFailure) -> None:
        if self._breaker is not None:
            self._breaker.failed()
        with self._lock:
            self.failures += 1
            now = self._clock()
            if now < self._say_at:
                return
            self._say_at, self._said = now + _SAY_EVERY, True
        logger.warning(
            "rate limits: the store fails, %s: %s (%d failures so far)",
            _CONSEQUENCES["closed" if failure.unsafe else self._policy],
            failure,
            self.failures,
        )

    def _recovered(self) -> None:
        if self._said:
            self._said = False
            logger.warning("rate limits: the store can be used again")


_CONSEQUENCES: Mapping[Policy, str] = {
    "local": "limits are kept by this machine or process alone",
    "closed": "requests are refused",
    "open": "requests are not limited",
}


@lru_cache(maxsize=1024)
def share_of(limit: RateLimit, machines: int) -> RateLimit:
    """Return a machine's share of a limit, with a burst of at least 1."""
    if machines == 1:
        return limit
    count, period = limit.count, limit.period
    if count % machines:
        period *= machines
    else:
        count //= machines
    burst = max(1, limit.burst // machines)
    return RateLimit(count, period, burst, limit.name, limit.scope)
