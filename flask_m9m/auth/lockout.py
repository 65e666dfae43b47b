"""Lockout: throttles failed logins (brute force, password guessing) by address and by account.

A password attempt takes a token from both limits before the password is verified, and gets it back
if it succeeds. An address from which an account signed in recently has a separate limit for that
account, so that a stranger's guesses do not lock the owner out. Forged tokens and API keys are
counted separately, by address alone, and only when they are refused. Valid ones are always
accepted.
"""

from __future__ import annotations

import math
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256

from ..errors import InvalidCredentials, LimitsUnavailable, M9MError, TooManyAttempts
from ..http.address import Client
from ..processes.bounded_cache import keep_newest
from ..processes.forking import fork_safe_lock
from ..ratelimit.gcra import Hit
from ..ratelimit.limit import RateLimit
from ..ratelimit.store import LimitStore, StoreFailure, Want
from ..settings.models import LockoutSettings

_KNOWN_FOR = 30 * 86_400  # seconds
_MOST_ACCOUNTS = 65_536
_MOST_ADDRESSES = 32  # per account, so that one account cannot evict the addresses of another
_NO_ADDRESSES: Mapping[str, float] = {}


class Lockout:
    """Throttles attempts to guess a credential.

    Args:
        settings: the lockout settings.
        store: the rate-limit store, used even if requests are not limited.
        clock: seconds since the epoch.

    Attributes:
        by_address: the limits keyed by client address.
        by_account: the limit keyed by account, under its `account_key`.
    """

    def __init__(
        self, settings: LockoutSettings, store: LimitStore, clock: Callable[[], float] = time.time
    ) -> None:
        self._enabled = settings.enabled
        self._store = store
        self._clock = clock
        per = math.ceil(settings.per)
        limit = partial(RateLimit, settings.attempts, per, settings.attempts)
        self._by_address = limit("attempts-address")
        self._forged_limit = limit("attempts-forged")
        self.by_address = (self._by_address, self._forged_limit)
        self.by_account = limit("attempts-account")
        self._known_addresses = KnownAddresses(clock)

    @contextmanager
    def attempt(self, account: str, client: Client) -> Iterator[None]:
        """Take a token, and give it back unless the block raises `InvalidCredentials`.

        Args:
            account: the name that was sent, whether or not the account exists.
            client: the client that sent it.

        Raises:
            TooManyAttempts: the account or the address has no tokens left; none was taken.
            LimitsUnavailable: the rate-limit store failed.
        """
        if not self._enabled:
            yield
            return
        name, begun = account_key(account), self._clock()
        known = self._known_addresses.knows(name, client.key)
        counters = [Want(self.by_account, f"{name} {client.key}" if known else name)]
        if client.address is not None:  # all clients of a Unix socket would share one
            counters.insert(0, Want(self._by_address, client.key))
        self._take(counters)
        try:
            yield
        except InvalidCredentials:
            raise
        except BaseException:
            self._give_back(counters, begun)
            raise
        self._give_back(counters, begun)
        if client.address is not None:
            self._known_addresses.remember(name, client.key)

    def _take(self, counters: Sequence[Want]) -> None:
        try:
            *_, last = self._store.hit_all(counters)
        except StoreFailure:
            raise LimitsUnavailable from None
        if not last.admitted:
            raise _too_many(last)

    def count_forged(self, client: Client) -> M9MError | None:
        """Count a forged token or API key; return the error if there were too many."""
        if not self._enabled or client.address is None:
            return None
        try:
            hit = self._store.hit(self._forged_limit, client.key)
        except StoreFailure:
            return LimitsUnavailable()
        return None if hit.admitted else _too_many(hit)

    def _give_back(self, counters: Sequence[Want], begun: float) -> None:
        for limit, key, _ in counters:
            # After so long a token has been refilled already, and a refund would add another.
            if self._clock() - begun < limit.period / limit.count:
                with suppress(StoreFailure):
                    self._store.refund(limit, key)


def _too_many(hit: Hit) -> TooManyAttempts:
    error = TooManyAttempts()
    error.headers = [("Retry-After", str(max(1, hit.next_token)))]
    return error


def account_key(account: str) -> str:
    """Hash an account's name into the key of its attempts, the same for all spellings.

    Case is ignored, since an app's names may be case-insensitive. The hash bounds the length of the
    key and keeps client input out of the store.
    """
    spelled = unicodedata.normalize("NFKC", account).casefold()
    return sha256(spelled.encode("utf-8", "surrogatepass")).hexdigest()


class KnownAddresses:
    """Remembers the addresses from which accounts signed in, the latest 32 of each account."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()
        self._lock = fork_safe_lock()

    def knows(self, account: str, address: str) -> bool:
        """Tell whether an account signed in from an address within the last 30 days."""
        since = self._known.get(account, _NO_ADDRESSES).get(address)
        return since is not None and 0 <= self._clock() - since < _KNOWN_FOR

    def remember(self, account: str, address: str) -> None:
        """Note that an account signed in from an address."""
        with self._lock:
            addresses = self._known.get(account) or OrderedDict()
            keep_newest(addresses, address, self._clock(), _MOST_ADDRESSES)
            keep_newest(self._known, account, addresses, _MOST_ACCOUNTS)
