"""KnownAddresses: the addresses from which accounts signed in within 30 days.

They are kept in the rate-limit store, which all workers share and which a reload does not empty,
and which needs no database; and in the database where there is one (see `address_archive`). In the
store, a known address is a bucket of two tokens with one token taken, which is refilled within 31
days. So the store hashes the addresses under its secret and bounds their number: 131,072 in a
shared store, where the one that signed in longest ago gives way.

An account adds 32 addresses at once, and then one a day, so that one account cannot push out the
addresses of others.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from ..processes.bounded_cache import BoundedCache
from ..processes.quiet import Quiet
from ..ratelimit.limit import RateLimit
from ..ratelimit.store import LimitStore, StoreFailure
from .address_archive import AddressArchive

logger = logging.getLogger("flask_m9m")

_DAY = 86_400
KNOWN_FOR = 31 * _DAY
"""Seconds: 30 days after a sign-in that came too early to renew the time."""

_RENEW_AFTER = _DAY
_REMEMBERED = 65_536  # by this process, so that most sign-ins ask no store
_LOG_EVERY = 30.0  # seconds between two log lines
_PAUSE = 2.0  # seconds for which a store that failed is not asked

_ADDRESS = RateLimit(1, KNOWN_FOR, 2, "known-address")
_NEW_ADDRESSES = RateLimit(32, KNOWN_FOR, 32, "new-addresses")


class KnownAddresses:
    """Remembers from which addresses accounts signed in.

    Args:
        store: the rate-limit store.
        clock: seconds since the epoch.
        archive: keeps them in the database.

    Attributes:
        limits: the limits under which the store keeps them; they limit nobody.
    """

    limits = (_ADDRESS, _NEW_ADDRESSES)

    def __init__(
        self,
        store: LimitStore,
        clock: Callable[[], float] = time.time,
        archive: AddressArchive | None = None,
    ) -> None:
        self._archive = archive
        self._store = store
        self._clock = clock
        self._renewed: BoundedCache[str, float] = BoundedCache(_REMEMBERED)
        self._failed_at = -math.inf
        self._quiet = Quiet(_LOG_EVERY, clock)

    def remembers(self, account: str, address: str) -> bool:
        """Tell whether this process knows the address of an account; asks no store."""
        at = self._renewed.find(_key(account, address))
        return at is not None and 0 <= self._clock() - at < KNOWN_FOR

    def knows(self, account: str, address: str) -> bool:
        """Tell whether the account signed in from the address, through any process.

        While the store fails, those that this process remembers and the database's are known.
        """
        key = _key(account, address)
        try:
            if self._ask(key):
                return True
        except StoreFailure as failure:
            self._note_failure(failure)
        seen_at = None if self._archive is None else self._archive.find(account, address)
        if seen_at is not None:
            self._renewed.keep(key, seen_at)
        return self.remembers(account, address)

    def remember(self, account: str, address: str) -> None:
        """Note that an account signed in from an address."""
        key = _key(account, address)
        at = self._renewed.find(key)
        if at is not None and 0 <= self._clock() - at < _RENEW_AFTER:
            return
        try:
            if self._ask(key):
                if self._age(key) < _RENEW_AFTER:
                    return
                self._store.reset(_ADDRESS, key)
            elif not self._store.hit(_NEW_ADDRESSES, account).admitted:
                return
            if self._store.hit(_ADDRESS, key).remaining == 0:  # another process did the same
                self._store.refund(_ADDRESS, key)
            renewed_at = self._clock()
        except StoreFailure as failure:
            self._note_failure(failure)
            renewed_at = self._clock() - _RENEW_AFTER  # the next sign-in tries again
        self._renewed.keep(key, renewed_at)
        if self._archive is not None:
            self._archive.keep(account, address)

    def _age(self, key: str) -> float:
        at = self._renewed.find(key)
        return KNOWN_FOR if at is None else self._clock() - at

    def _ask(self, key: str) -> bool:
        """Ask the store for an address, and remember the answer if it is known.

        Raises:
            StoreFailure: the store failed, or did a moment ago.
        """
        if time.monotonic() - self._failed_at < _PAUSE:
            raise _Paused("it failed a moment ago")
        left = self._store.peek(_ADDRESS, key).full_after
        if left > 0:
            at = self._clock() - max(0, KNOWN_FOR - left)  # never in the future
            self._renewed.keep(key, at)
        return left > 0

    def _note_failure(self, failure: StoreFailure) -> None:
        if isinstance(failure, _Paused):
            return
        self._failed_at = time.monotonic()
        if self._quiet.record("failure"):
            logger.warning(
                "lockout: the store fails, so other processes do not know the addresses that "
                "accounts sign in from through this one: %s",
                failure,
            )


class _Paused(StoreFailure):
    """The store is not asked, as it failed a moment ago."""


def _key(account: str, address: str) -> str:
    return f"{account} {address}"
