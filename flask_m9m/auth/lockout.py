"""Lockout: throttles failed logins (brute force, password guessing) by address and by account.

A password attempt takes a token from both limits before the password is verified, and gets it back
if it succeeds. An address from which an account signed in recently has a separate limit for that
account, so that a stranger's guesses do not lock the owner out. Forged tokens and API keys are
counted separately, by address alone, and only when they are refused. Valid ones are always
accepted.
"""

from __future__ import annotations

import math
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256

from ..errors import (
    InvalidApiKey,
    InvalidCredentials,
    LimitsUnavailable,
    M9MError,
    TooManyAttempts,
)
from ..http.address import Client
from ..ratelimit.gcra import Hit
from ..ratelimit.limit import RateLimit
from ..ratelimit.store import LimitStore, StoreFailure, Want
from ..settings.models import LockoutSettings
from .address_archive import AddressArchive
from .known_addresses import KnownAddresses

_LONGEST = 512  # characters of a name by which accounts are told apart

# Default_Ignorable_Code_Point of Unicode 16, DerivedCoreProperties.txt: invisible characters.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)


class Lockout:
    """Throttles attempts to guess a credential.

    Args:
        settings: the lockout settings.
        store: the rate-limit store, used even if requests are not limited.
        clock: seconds since the epoch.
        archive: keeps the addresses that accounts signed in from in the database.

    Attributes:
        by_address: the limits keyed by client address.
        by_account: the limit keyed by account, under its `account_key`.
        known_addresses: the addresses from which accounts signed in.
    """

    def __init__(
        self,
        settings: LockoutSettings,
        store: LimitStore,
        clock: Callable[[], float] = time.time,
        archive: AddressArchive | None = None,
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
        self.known_addresses = KnownAddresses(store, clock, archive)

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
        counters = self._take(name, client)
        try:
            yield
        except InvalidCredentials:
            raise
        except BaseException:
            self._give_back(counters, begun)
            raise
        self._give_back(counters, begun)
        if client.address is not None:
            self.known_addresses.remember(name, client.key)

    def count_failure(self, account: str, client: Client) -> None:
        """Count an attempt that failed after its password was verified."""
        errors = suppress(TooManyAttempts, LimitsUnavailable, InvalidCredentials)
        with errors, self.attempt(account, client):
            raise InvalidCredentials

    def _take(self, name: str, client: Client) -> Sequence[Want]:
        """Take a token from both counters, and return them.

        Other processes may know the client's address. They are asked only if the counter that all
        unknown addresses share has no tokens left: most attempts need no further look-up.
        """
        known = self.known_addresses
        counters = self._counters(name, client, known.remembers(name, client.key))
        try:
            hits = self._store.hit_all(counters)
            if self._is_account_out(hits, counters, name) and known.knows(name, client.key):
                counters = self._counters(name, client, known=True)
                hits = self._store.hit_all(counters)
        except StoreFailure:
            raise LimitsUnavailable from None
        if not hits[-1].admitted:
            raise _too_many(hits[-1])
        return counters

    @staticmethod
    def _is_account_out(hits: Sequence[Hit], counters: Sequence[Want], name: str) -> bool:
        """Tell whether the account's shared counter alone has refused an attempt by address."""
        asked_all = len(hits) == len(counters) == 2
        return asked_all and not hits[-1].admitted and counters[-1].client == name

    def _counters(self, name: str, client: Client, known: bool) -> Sequence[Want]:
        by_account = Want(self.by_account, f"{name} {client.key}" if known else name)
        if client.address is None:  # all clients of a Unix socket would share one
            return [by_account]
        return [Want(self._by_address, client.key), by_account]

    def count_forged(self, client: Client) -> M9MError | None:
        """Count a forged token or API key; return the error if there were too many."""
        if not self._enabled or client.address is None:
            return None
        try:
            hit = self._store.hit(self._forged_limit, client.key)
        except StoreFailure:
            return LimitsUnavailable()
        return None if hit.admitted else _too_many(hit)

    @contextmanager
    def look_up(self, client: Client, refuses: Callable[[], bool]) -> Iterator[None]:
        """Count a credential before the database is asked about it; a valid one does not count.

        Args:
            client: the client that presented it.
            refuses: called for a client with too many forged credentials before; tells whether
                the credential is refused without a query.

        Raises:
            TooManyAttempts: the client has too many, and the credential is refused, or the block
                raises `InvalidApiKey`.
        """
        error, begun = self.count_forged(client), self._clock()
        locked = error if isinstance(error, TooManyAttempts) else None
        if locked is not None and refuses():
            raise locked
        try:
            yield
        except InvalidApiKey as forged:
            forged.guess = error is not None  # it is counted already, unless the store failed
            raise locked or forged from None
        except BaseException:
            self._uncount_forged(client, error, begun)
            raise
        self._uncount_forged(client, error, begun)

    def _uncount_forged(self, client: Client, error: M9MError | None, begun: float) -> None:
        if self._enabled and client.address is not None and error is None:
            self._give_back([Want(self._forged_limit, client.key)], begun)

    def is_locked(self, client: Client) -> bool:
        """Tell whether the client's next forged credential is one too many."""
        if not self._enabled or client.address is None:
            return False
        try:
            return not self._store.peek(self._forged_limit, client.key).admitted
        except StoreFailure:
            return False

    def _give_back(self, counters: Sequence[Want], begun: float) -> None:
        for limit, key, _ in counters:
            # After so long a token has been refilled already, and a refund would add another.
            if 0 <= self._clock() - begun < limit.period / limit.count:
                with suppress(StoreFailure):
                    self._store.refund(limit, key)


def _too_many(hit: Hit) -> TooManyAttempts:
    error = TooManyAttempts()
    error.headers = [("Retry-After", str(max(1, hit.next_token)))]
    return error


def account_key(account: str) -> str:
    """Hash an account's name into the key of its attempts, the same for all spellings.

    An app's names may be case-insensitive: each spelling would bring a counter of its own. The hash
    bounds the length of the key and keeps client input out of the store.
    """
    spelled = _folded(account[:_LONGEST])
    return sha256(spelled.encode("utf-8", "surrogatepass")).hexdigest()


def _folded(name: str) -> str:
    """Fold a name for comparison without case (Unicode 16 §3.13.3, D146, NFKC_Casefold)."""
    if name.isascii():
        return name.lower()
    name, before = _INVISIBLE.sub("", name), ""
    while name != before:  # folded characters may decompose into some that fold again
        before = name
        # Decomposed, so that an iota below a letter folds alike wherever it is written. A dotless i
        # has the capitals of i.
        name = unicodedata.normalize("NFKD", name).casefold().replace("\u0131", "i")
    return name
