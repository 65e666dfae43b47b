"""Lockout: guesses are throttled by address and by account, and lock no owner out.

An attempt at a password takes its token from both counters before anything is verified, and gets
it back when it succeeds. From an address at which the account signed in lately, its attempts have
a counter of their own, so that a stranger who guesses all the time does not keep the owner from
signing in. Tokens and API keys that nobody issued are counted apart, by address alone, and only
when they are refused: those that hold are served whatever the counter says.
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
from ..processes.forking import fork_safe_lock
from ..ratelimit import Hit, LimitStore, RateLimit, StoreFailure, Want
from ..settings import LockoutSettings

_KNOWN_FOR = 30 * 86_400  # seconds
_MOST_ACCOUNTS = 65_536
_MOST_ADDRESSES = 32  # of one account, so that nobody can have another's forgotten
_NOWHERE: Mapping[str, float] = {}


class Lockout:
    """Throttles attempts to guess a credential.

    Args:
        settings: the app's.
        store: where the counters are kept, whether or not requests are limited.
        clock: seconds since the epoch.

    Attributes:
        by_address: limits whose clients are addresses.
        by_account: the one whose clients are accounts, by their `account_key`.
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
        self._forged = limit("attempts-forged")
        self.by_address = (self._by_address, self._forged)
        self.by_account = limit("attempts-account")
        self._known_addresses = KnownAddresses(clock)

    @contextmanager
    def attempt(self, account: str, client: Client) -> Iterator[None]:
        """Count what is done inside as one attempt, unless it succeeds.

        Args:
            account: the name that was sent, known or not.
            client: who sent it.

        Raises:
            TooManyAttempts: there were too many; nothing was taken.
            LimitsUnavailable: it cannot be told.
        """
        if not self._enabled:
            yield
            return
        name, begun = account_key(account), self._clock()
        known = self._known_addresses.knows(name, client.key)
        counters = [Want(self.by_account, f"{name} {client.key}" if known else name)]
        if client.address is not None:  # over a Unix socket everybody would be one address
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

    def forged(self, client: Client) -> M9MError | None:
        """Count a token or a key that nobody issued; return what to answer to too many."""
        if not self._enabled or client.address is None:
            return None
        try:
            hit = self._store.hit(self._forged, client.key)
        except StoreFailure:
            return LimitsUnavailable()
        return None if hit.admitted else _too_many(hit)

    def _give_back(self, counters: Sequence[Want], begun: float) -> None:
        for limit, key, _ in counters:
            # What took so long that a token has come by itself gives none back.
            if self._clock() - begun < limit.period / limit.count:
                with suppress(StoreFailure):
                    self._store.refund(limit, key)


def _too_many(hit: Hit) -> TooManyAttempts:
    error = TooManyAttempts()
    error.headers = [("Retry-After", str(max(1, hit.next_token)))]
    return error


def account_key(account: str) -> str:
    """Return what an account's attempts are counted under, however its name is spelled.

    An app may know names in any case; and a name may be long and is whatever was sent: what is
    kept of it is neither.
    """
    spelled = unicodedata.normalize("NFKC", account).casefold()
    return sha256(spelled.encode("utf-8", "surrogatepass")).hexdigest()


class KnownAddresses:
    """Remembers at which addresses accounts signed in lately, the latest few of each."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()
        self._lock = fork_safe_lock()

    def knows(self, account: str, address: str) -> bool:
        """Tell whether the account signed in there within 30 days."""
        since = self._known.get(account, _NOWHERE).get(address)
        return since is not None and 0 <= self._clock() - since < _KNOWN_FOR

    def remember(self, account: str, address: str) -> None:
        """Note that the account signed in there now."""
        with self._lock:
            addresses = self._known.setdefault(account, OrderedDict())
            addresses[address] = self._clock()
            addresses.move_to_end(address)
            self._known.move_to_end(account)
            if len(addresses) > _MOST_ADDRESSES:
                addresses.popitem(last=False)
            if len(self._known) > _MOST_ACCOUNTS:
                self._known.popitem(last=False)
