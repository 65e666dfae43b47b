"""Lockout: guesses are throttled by address and by account, and lock no owner out.

An attempt takes its token from both counters before anything is verified, and gets it back when
it succeeds. From an address at which the account signed in lately, its attempts have a counter
of their own, so that a stranger who guesses all the time does not keep the owner from signing in.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256

from ..address import Client
from ..errors import InvalidCredentials, TooManyAttempts
from ..ratelimit import LimitStore, RateLimit
from ..settings import LockoutSettings

_KNOWN_FOR = 30 * 86_400  # seconds
_MOST_KNOWN = 65_536


class Lockout:
    """Throttles attempts to guess a password.

    Args:
        settings: the app's.
        store: where the counters are kept, whether or not requests are limited.
        clock: seconds since the epoch.
    """

    def __init__(
        self, settings: LockoutSettings, store: LimitStore, clock: Callable[[], float] = time.time
    ) -> None:
        self._enabled = settings.enabled
        self._store = store
        per = math.ceil(settings.per)
        self._by_address = RateLimit(settings.attempts, per, settings.attempts, "attempts-address")
        self._by_account = RateLimit(settings.attempts, per, settings.attempts, "attempts-account")
        self._signed_in = SignedIn(clock)

    @contextmanager
    def attempt(self, account: str, client: Client) -> Iterator[None]:
        """Count what is done inside as one attempt, unless it succeeds.

        Args:
            account: the name that was sent, known or not.
            client: who sent it.

        Raises:
            TooManyAttempts: there were too many; nothing was taken.
        """
        if not self._enabled:
            yield
            return
        # A name may be long and is whatever was sent: what is kept of it is neither.
        name = sha256(account.encode("utf-8", "surrogatepass")).hexdigest()
        here = f"{name} {client.key}"
        account_key = here if self._signed_in.knows(here) else name
        counters = ((self._by_address, client.key), (self._by_account, account_key))
        self._take(counters)
        try:
            yield
        except InvalidCredentials:
            raise
        except BaseException:
            self._give_back(counters)
            raise
        self._give_back(counters)
        if client.address is not None:
            self._signed_in.remember(here)

    def _take(self, counters: tuple[tuple[RateLimit, str], ...]) -> None:
        for number, (limit, key) in enumerate(counters):
            hit = self._store.hit(limit, key)
            if not hit.admitted:
                self._give_back(counters[:number])
                error = TooManyAttempts()
                error.headers = [("Retry-After", str(max(1, hit.next_token)))]
                raise error

    def _give_back(self, counters: tuple[tuple[RateLimit, str], ...]) -> None:
        for limit, key in counters:
            self._store.refund(limit, key)


class SignedIn:
    """Remembers at which addresses accounts signed in lately, the latest of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def knows(self, account_and_address: str) -> bool:
        """Tell whether the account signed in there within 30 days."""
        since = self._known.get(account_and_address)
        return since is not None and 0 <= self._clock() - since < _KNOWN_FOR

    def remember(self, account_and_address: str) -> None:
        """Note that the account signed in there now."""
        with self._lock:
            self._known[account_and_address] = self._clock()
            self._known.move_to_end(account_and_address)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
