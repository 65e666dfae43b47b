"""Limiter: what rate limits take of a request, and give back once its answer is known."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from ..errors import LimitsUnavailable, M9MError, RateLimited
from ..processes.forking import fork_safe_lock
from ..ratelimit.gcra import Hit
from ..ratelimit.limit import RateLimit
from ..ratelimit.store import LimitStore, StoreFailure, Want
from ..settings.models import RateLimitSettings
from .exchange import Exchange, Provisional
from .marks import LimitMark
from .policy import RouteLimit

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

logger = logging.getLogger("flask_m9m")

_LONGEST_KEY = 64
_QUIET_FOR = 30  # seconds between two lines about one limit


class Limiter:
    """Takes the tokens that a request needs.

    Args:
        settings: of the general limit.
        store: where tokens are counted.
        clock: seconds since the epoch.
        observers: called with the limit's name for requests that a limit with `shadow` would
            have refused.

    Attributes:
        general: the limit on all requests; `None` where it is switched off.
        default_key: whose budget a limit is that does not say.
        trials: what limits with `shadow` would have refused.
    """

    def __init__(
        self,
        settings: RateLimitSettings,
        store: LimitStore,
        clock: Callable[[], float] = time.time,
        *,
        observers: Sequence[Callable[[str], None]] = (),
    ) -> None:
        general = RateLimit(settings.requests_per_minute, 60, settings.burst)
        self.general = general if settings.enabled else None
        self.default_key = settings.key
        self.trials = Trials(clock, observers)
        self._store = store
        self._clock = clock

    def try_out(self, want: Want) -> Hit | None:
        """Take tokens that a limit with `shadow` counts; whatever it says holds nobody up."""
        if _is_possible(want):
            try:
                hit = self._store.hit(*want)
            except StoreFailure:
                return None
            if hit.admitted:
                return hit
        self.trials.note(want.limit.name)
        return None

    def take(self, exchange: Exchange, route_limits: Sequence[RouteLimit] = ()) -> M9MError | None:
        """Take what a request needs: of all limits, or of none where one has too little.

        Args:
            exchange: the request; what it owes is taken first.
            route_limits: those of its route.

        Returns:
            Why the request is refused, if it is.
        """
        if len(route_limits) == 1 and not exchange.wants:
            only = route_limits[0]
            if only.plain is not None:
                return self._take_one(exchange, only.mark, only.plain)
        marks: list[LimitMark | None] = [None] * len(exchange.wants)
        wants, exchange.wants = list(exchange.wants), ()
        tried_out: list[tuple[LimitMark, Want]] = []
        try:
            for mark, want in self._wanted(exchange, route_limits):
                if mark.shadow:
                    tried_out.append((mark, want))
                else:
                    marks.append(mark)
                    wants.append(want)
        except Exception:
            # One of the app's callables: what stands before it counts a bad request all the same.
            error = self._take_all(exchange, marks, wants)
            if error is not None:
                return error
            raise
        error = self._take_all(exchange, marks, wants)
        if error is None:
            for mark, want in tried_out:
                hit = self.try_out(want)
                if hit is not None:
                    self._keep(exchange, mark, want, hit)
        return error

    def _take_one(self, exchange: Exchange, mark: LimitMark, limit: RateLimit) -> M9MError | None:
        """Take what most limited routes want, in a fraction of the time."""
        assert not callable(mark.cost)  # noqa: S101  # it would not be plain
        try:
            hit = self._store.hit(limit, self._client(exchange, mark), mark.cost)
        except StoreFailure:
            return LimitsUnavailable()
        exchange.hits += (hit,)
        return None if hit.admitted else limited(hit)

    def _wanted(
        self, exchange: Exchange, route_limits: Sequence[RouteLimit]
    ) -> Iterator[tuple[LimitMark, Want]]:
        for route_limit in route_limits:
            mark = route_limit.mark
            if mark.exempt_when is not None and mark.exempt_when():
                continue
            client = self._client(exchange, mark)
            cost = mark.cost() if callable(mark.cost) else mark.cost
            for limit in route_limit.limits():
                yield mark, Want(limit, client, cost)

    def _client(self, exchange: Exchange, mark: LimitMark) -> str:
        key = mark.key or self.default_key
        if not callable(key):
            return client_key(exchange, key)
        chosen = key()
        return exchange.client.key if chosen is None else custom_key(chosen)

    def _take_all(
        self, exchange: Exchange, marks: Sequence[LimitMark | None], wants: Sequence[Want]
    ) -> M9MError | None:
        if not wants:
            return None
        for want in wants:
            if not _is_possible(want):
                limit = want.limit
                hit = Hit(limit, False, 0, limit.period, limit.period)
                exchange.hits += (hit,)
                return limited(hit)
        try:
            hits = self._store.hit_all(wants) if len(wants) > 1 else [self._store.hit(*wants[0])]
        except StoreFailure:
            return LimitsUnavailable()
        exchange.hits += tuple(hits)
        if not hits[-1].admitted:
            return limited(hits[-1])
        for mark, want, hit in zip(marks, wants, hits, strict=True):
            if mark is not None:
                self._keep(exchange, mark, want, hit)
        return None

    def _keep(self, exchange: Exchange, mark: LimitMark, want: Want, hit: Hit) -> None:
        """Keep what was taken where the answer decides whether it counts."""
        if mark.count is not None:
            exchange.provisional += (Provisional(mark, want, hit, self._clock()),)

    def settle(self, exchange: Exchange, answer: Response) -> None:
        """Give back what was taken by limits that do not count this answer."""
        provisional, exchange.provisional = exchange.provisional, ()
        counted: dict[LimitMark, bool] = {}
        for mark, want, hit, taken in provisional:
            if mark not in counted:
                counted[mark] = _counts(mark, want.limit, answer)
            # What took so long that a token has come by itself gives none back.
            in_time = 0 <= self._clock() - taken < want.limit.period / want.limit.count
            if in_time and not counted[mark]:
                with suppress(StoreFailure):
                    self._store.refund(*want)
                    hit.remaining += want.cost


class Trials:
    """What limits with `shadow` would have refused, in this process.

    Args:
        clock: seconds since the epoch.
        observers: called with the limit's name for each such request.

    Attributes:
        totals: requests by the limit's name.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        observers: Sequence[Callable[[str], None]] = (),
    ) -> None:
        self.totals: dict[str, int] = {}
        self._observers = observers
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}
        self._lock = fork_safe_lock()

    def note(self, name: str) -> None:
        """Count a request that the limit of this name would have refused."""
        for observer in self._observers:
            observer(name)
        now = self._clock()
        with self._lock:
            total = self.totals[name] = self.totals.get(name, 0) + 1
            said_at, said = self._said.get(name, (-float("inf"), 0))
            if 0 <= now - said_at < _QUIET_FOR:
                return
            self._said[name] = (now, total)
        logger.info("rate limit %s (shadow): would have refused %d more", name, total - said)


def limited(hit: Hit) -> RateLimited:
    """Return the refusal of a request for which there were too few tokens."""
    error = RateLimited()
    error.headers = [("Retry-After", str(max(1, hit.next_token)))]
    error.members = {"violated-policies": [hit.limit.name]}
    return error


def client_key(exchange: Exchange, key: str) -> str:
    """Return what a request is counted under: its identity, or its address."""
    if key == "identity" and exchange.identity is not None:
        return identity_key(exchange.identity.subject)
    return exchange.client.key


def identity_key(subject: str) -> str:
    """Return what an identity is counted under."""
    return f"identity:{_bounded(subject)}"


def custom_key(chosen: object) -> str:
    """Return what is counted under a key that an app's callable chose.

    Bytes count as the text with these code points, other objects as what `str` makes of them, and
    what it makes nothing of as its type's name.
    """
    if isinstance(chosen, bytes):
        text = chosen.decode("latin-1")
    else:
        try:
            text = str(chosen)
        except Exception:  # the digits of a number may be too many, and an object may be anything
            text = type(chosen).__name__
    return f"custom:{_bounded(text)}"


def _bounded(text: str) -> str:
    """Return a text, or a hash of it where it is long or no store could write it down."""
    if len(text) <= _LONGEST_KEY:
        if text.isascii():
            return text
        with suppress(UnicodeEncodeError):
            text.encode()
            return text
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_possible(want: Want) -> bool:
    limit, _, cost = want
    if type(cost) is int and 1 <= cost <= limit.burst:
        return True
    logger.error("rate limit %s: a cost of %a is not 1 to %d", limit.name, cost, limit.burst)
    return False


def _counts(mark: LimitMark, limit: RateLimit, answer: Response) -> bool:
    assert mark.count is not None  # noqa: S101  # else nothing was kept for it
    try:
        return bool(mark.count(answer))
    except Exception:
        logger.exception("rate limit %s: count failed, so that the request counts", limit.name)
        return True
