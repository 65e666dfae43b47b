"""Lockout: guesses are throttled by address and by account, and lock no owner out.

An attempt takes its token from both counters before anything is verified, and gets it back when
it succeeds. From an address at which the account signed in lately, its attempts have a counter
of their own, so that a stranger who guesses all the time does not keep the owner from signing in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from ..address import Client
from ..errors import InvalidCredentials, TooManyAttempts
from ..ratelimit import LimitStore, RateLimit
from ..settings import LockoutSettings

_REMEMBERED = 30 * 86_400  # seconds for which a signed-in address is known


class Lockout:
    """Throttles attempts to guess a password.

    Args:
        settings: the app's.
        store: where the counters are kept, whether or not requests are limited.
    """

    def __init__(self, settings: LockoutSettings, store: LimitStore) -> None:
        self._enabled = settings.enabled
        self._store = store
        per = math.ceil(settings.per)
        self._by_address = RateLimit(settings.attempts, per, settings.attempts, "attempts-address")
        self._by_account = RateLimit(settings.attempts, per, settings.attempts, "attempts-account")
        self._signed_in = RateLimit(1, _REMEMBERED, 1, "signed-in")

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
        known = f"{name} {client.key}"
        is_known = not self._store.peek(self._signed_in, known).admitted
        counters = ((self._by_address, client.key), (self._by_account, known if is_known else name))
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
            self._store.refund(self._signed_in, known)
            self._store.hit(self._signed_in, known)

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
