"""Limiter: takes and refunds rate-limit tokens for a request; the 429 and its `Retry-After`."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from ..errors import LimitsUnavailable, M9MError, RateLimited
from ..processes.forking import fork_safe_lock
from ..processes.quiet import Quiet
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
_LOG_INTERVAL = 30  # seconds between two log lines about the same limit


class Limiter:
    """Takes the tokens of a request from its rate limits.

    Args:
        settings: the settings of the general limit.
        store: counts the tokens.
        clock: a monotonic clock, in seconds.
        observers: called with the limit's name for each request that a `shadow` limit would have
            refused.

    Attributes:
        general: the limit on all requests; `None` if it is switched off.
        default_key: the key of limits that name none: `address` or `identity`.
        shadow_refusals: counts requests that `shadow` limits would have refused.
    """

    def __init__(
        self,
        settings: RateLimitSettings,
        store: LimitStore,
        clock: Callable[[], float] = time.monotonic,
        *,
        observers: Sequence[Callable[[str], None]] = (),
    ) -> None:
        general = RateLimit(settings.requests_per_minute, 60, settings.burst)
        self.general = general if settings.enabled else None
        self.default_key = settings.key
        self.shadow_refusals = ShadowRefusals(clock, observers)
        self._store = store
        self._clock = clock
        self._quiet = Quiet(_LOG_INTERVAL, clock)

    def take_shadow(self, want: Want) -> Hit | None:
        """Take tokens from a `shadow` limit, which refuses no request.

        Returns:
            The limit's result, or `None` if there are too few tokens or the store fails.
        """
        if self._is_possible(want):
            try:
                hit = self._store.hit(*want)
            except StoreFailure:
                return None
            if hit.admitted:
                return hit
        self.shadow_refusals.note(want.limit.name)
        return None

    def take(self, exchange: Exchange, route_limits: Sequence[RouteLimit] = ()) -> M9MError | None:
        """Take a request's tokens from all limits, or from none if a limit has too few.

        Args:
            exchange: the request's exchange; the tokens in `wants` are taken first.
            route_limits: the limits of its route.

        Returns:
            The refusal, or `None` if the request is within its limits.
        """
        if len(route_limits) == 1 and not exchange.wants:
            only = route_limits[0]
            if only.plain is not None:
                return self._take_one(exchange, only.mark, only.plain)
        marks: list[LimitMark | None] = [None] * len(exchange.wants)
        wants, exchange.wants = list(exchange.wants), ()
        shadows: list[tuple[LimitMark, Want]] = []
        try:
            for mark, want in self._wanted(exchange, route_limits):
                if mark.shadow:
                    shadows.append((mark, want))
                else:
                    marks.append(mark)
                    wants.append(want)
        except Exception:
            # A callable of the app failed: the limits before it count the request anyway.
            error = self._take_all(exchange, marks, wants)
            if error is not None:
                return error
            raise
        error = self._take_all(exchange, marks, wants)
        if error is None:
            for mark, want in shadows:
                begun = self._clock()
                hit = self.take_shadow(want)
                if hit is not None:
                    self._note_provisional(exchange, mark, want, hit, begun)
        return error

    def _take_one(self, exchange: Exchange, mark: LimitMark, limit: RateLimit) -> M9MError | None:
        """Take the tokens of a single plain limit: the fast path of most limited routes."""
        assert not callable(mark.cost)  # noqa: S101  # a plain limit has a fixed cost
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
            if mark.exempt_when is not None:
                exempt = mark.exempt_when()
                if exempt:
                    _check_plain("exempt_when", exempt)
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
        _check_plain("key", chosen)
        return exchange.client.key if chosen is None else custom_key(chosen)

    def _take_all(
        self, exchange: Exchange, marks: Sequence[LimitMark | None], wants: Sequence[Want]
    ) -> M9MError | None:
        if not wants:
            return None
        for want in wants:
            if not self._is_possible(want):
                limit = want.limit
                hit = Hit(limit, False, 0, limit.period, limit.period)
                exchange.hits += (hit,)
                return limited(hit)
        begun = self._clock()
        try:
            hits = self._store.hit_all(wants) if len(wants) > 1 else [self._store.hit(*wants[0])]
        except StoreFailure:
            return LimitsUnavailable()
        exchange.hits += tuple(hits)
        if not hits[-1].admitted:
            return limited(hits[-1])
        for mark, want, hit in zip(marks, wants, hits, strict=True):
            if mark is not None:
                self._note_provisional(exchange, mark, want, hit, begun)
        return None

    def _is_possible(self, want: Want) -> bool:
        limit, _, cost = want
        if type(cost) is int and 1 <= cost <= limit.burst:
            return True
        times = self._quiet.record(limit.name)
        if times:
            logger.error(
                "rate limit %s: the cost is %a; accepted is 1 to %d (%d times)",
                limit.name,
                cost,
                limit.burst,
                times,
            )
        return False

    def _note_provisional(
        self, exchange: Exchange, mark: LimitMark, want: Want, hit: Hit, begun: float
    ) -> None:
        """Store the taken tokens in the exchange if the response decides whether they count."""
        if mark.count is not None:
            exchange.provisional += (Provisional(mark, want, hit, begun),)

    def settle(self, exchange: Exchange, response: Response) -> None:
        """Refund the tokens of limits that do not count this response."""
        provisional, exchange.provisional = exchange.provisional, ()
        counted: dict[LimitMark, bool] = {}
        for mark, want, hit, taken in provisional:
            if mark not in counted:
                counted[mark] = _counts(mark, want.limit, response)
            # After that time the limit has refilled a token already: no refund then.
            in_time = 0 <= self._clock() - taken < want.limit.period / want.limit.count
            if in_time and not counted[mark]:
                with suppress(StoreFailure):
                    self._store.refund(*want)
                    hit.remaining += want.cost


class ShadowRefusals:
    """Counts and logs the requests of this process that `shadow` limits would have refused.

    Args:
        clock: a monotonic clock, in seconds.
        observers: called with the limit's name for each such request.

    Attributes:
        totals: the number of requests, by the limit's name.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        observers: Sequence[Callable[[str], None]] = (),
    ) -> None:
        self.totals: dict[str, int] = {}
        self._observers = observers
        self._quiet = Quiet(_LOG_INTERVAL, clock)
        self._lock = fork_safe_lock()

    def note(self, name: str) -> None:
        """Count a request that the limit of this name would have refused."""
        for observer in self._observers:
            observer(name)
        with self._lock:
            self.totals[name] = self.totals.get(name, 0) + 1
        more = self._quiet.record(name)
        if more:
            logger.info("rate limit %s (shadow): would have refused %d more", name, more)


def _check_plain(argument: str, result: object) -> None:
    """Refuse the result of a function that turned out to be asynchronous: it is always true.

    Raises:
        TypeError: the result is awaitable.
    """
    if isinstance(result, Awaitable):
        if isinstance(result, Coroutine):
            result.close()
        raise TypeError(f"{argument} of @rate_limit must be a plain function, found a coroutine")


def limited(hit: Hit) -> RateLimited:
    """Make the refusal of a request for which a limit has too few tokens."""
    error = RateLimited()
    error.headers = [("Retry-After", str(max(1, hit.next_token)))]
    error.members = {"violated-policies": [hit.limit.name]}
    return error


def client_key(exchange: Exchange, key: str) -> str:
    """Return the key under which a limit counts a request: its identity's or its address's."""
    if key == "identity" and exchange.identity is not None:
        return identity_key(exchange.identity.subject)
    return exchange.client.key


def identity_key(subject: str) -> str:
    """Return the key under which a limit counts an identity."""
    return f"identity:{_bounded(subject)}"


def custom_key(chosen: object) -> str:
    """Return the key for a value that an app's callable returned.

    Bytes are read as Latin-1, and other objects by `str`. Where `str` fails, the key is the name
    of the object's type.
    """
    if isinstance(chosen, bytes):
        text = chosen.decode("latin-1")
    else:
        try:
            text = str(chosen)
        except Exception:  # an integer may have too many digits; any object's `__str__` may fail
            text = type(chosen).__name__
    return f"custom:{_bounded(text)}"


def _bounded(text: str) -> str:
    """Return a text, or its hash if it is too long or cannot be encoded as UTF-8.

    The hash is marked, and is longer than any text that stays as it is, so that no text is
    another's hash.
    """
    if len(text) <= _LONGEST_KEY:
        if text.isascii():
            return text
        with suppress(UnicodeEncodeError):
            text.encode()
            return text
    return f"#{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _counts(mark: LimitMark, limit: RateLimit, response: Response) -> bool:
    assert mark.count is not None  # noqa: S101  # only limits with `count` are provisional
    try:
        return bool(mark.count(response))
    except Exception:
        logger.exception("rate limit %s: count failed; the request counts", limit.name)
        return True
