"""IssuedKeys: tells which API keys exist, so that made-up ones cost no query each."""

from __future__ import annotations

from collections.abc import Callable

from ..storage.feed import ChangeFeed, Topic
from ..storage.records import moment

_CAPACITY = 65_536  # keys, about 100 bytes each
_NONE: frozenset[bytes] = frozenset()


class IssuedKeys:
    """The digests of all valid API keys, loaded when a client is locked out for made-up keys.

    With more than 65,536 keys none are loaded: a locked-out client then has to present keys that
    this process knows already.

    Args:
        feed: the change feed, which reports changed keys.
        clock: seconds since the epoch.
    """

    def __init__(self, feed: ChangeFeed, clock: Callable[[], float]) -> None:
        self._feed = feed
        self._clock = clock
        self._digests: frozenset[bytes] | None = None
        feed.subscribe(self)

    def may_include(self, digest: bytes) -> bool:
        """Tell whether there may be a key with this digest.

        Raises:
            DatabaseUnavailable: the keys cannot be loaded.
        """
        return digest in self.load()

    def load(self) -> frozenset[bytes]:
        """Return the digests; one query, if a key has changed since the last.

        Raises:
            DatabaseUnavailable: the keys cannot be loaded.
        """
        digests = self._digests
        if digests is None:
            ticket, now = self._feed.fill_ticket(), moment(self._clock())
            digests = self._feed.ask(
                lambda transaction: transaction.identities.key_digests(now, _CAPACITY + 1)
            )
            loaded = digests = digests if len(digests) <= _CAPACITY else _NONE
            self._feed.keep(ticket, lambda: self._keep(loaded))
        return digests

    def _keep(self, digests: frozenset[bytes]) -> None:
        self._digests = digests

    def drop(self, topic: str, name: str) -> None:
        """Forget the keys after one of them has changed."""
        if topic == Topic.API_KEY:
            self._digests = None

    def clear(self) -> None:
        """Forget the keys."""
        self._digests = None
