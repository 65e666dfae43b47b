"""LimitStore: where the theoretical arrival times are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .gcra import Hit
from .limit import RateLimit


class StoreFailure(Exception):
    """A store cannot say whether there are tokens: it is gone, slow, full or damaged.

    Attributes:
        unsafe: whether it is somebody else's doing, so that no failure policy but `closed` holds.
    """

    def __init__(self, reason: str, *, unsafe: bool = False) -> None:
        super().__init__(reason)
        self.unsafe = unsafe


class Want(NamedTuple):
    """Tokens that a request needs: how many, of whose bucket."""

    limit: RateLimit
    client: str
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Spender:
    """A client that has used some of a limit.

    Attributes:
        limit: the limit.
        client_id: by what the store knows the client; `LimitStore.client_id` tells whose it is.
        hit: what its next request would be told.
    """

    limit: RateLimit
    client_id: str
    hit: Hit


class LimitStore(ABC):
    """Keeps one number per limit and client and takes tokens atomically.

    Every method raises `StoreFailure` where the store cannot be used.

    Attributes:
        shared: whether other processes, the command line among them, see the same numbers.
        where: by whom the numbers are counted together, to follow the word "counted".
        failures: how often it has failed this process.
    """

    shared = True
    where: str
    failures = 0

    def prepare(self, limits: Iterable[RateLimit]) -> None:  # noqa: B027  # most have nothing to do
        """Make sure, as far as it can be told, that these limits can be kept.

        Raises:
            SettingsError: what the store would use is not safe to use.
        """

    @abstractmethod
    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""

    @abstractmethod
    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        """Put tokens back that were taken."""

    @abstractmethod
    def peek(self, limit: RateLimit, client: str) -> Hit:
        """Return what the client's next request would be told, and take nothing."""

    @abstractmethod
    def reset(self, limit: RateLimit, client: str) -> None:
        """Fill the client's bucket."""

    @abstractmethod
    def client_id(self, limit: RateLimit, client: str) -> str:
        """Return by what the store knows a client; it tells nobody who that is."""

    @abstractmethod
    def spenders(self) -> Iterable[Spender]:
        """Return, in no order, whose buckets are not full."""

    def hit_all(self, wants: Sequence[Want]) -> list[Hit]:
        """Take what a request needs of several buckets, up to the first that has too little.

        Where one has too little, the others get back what was taken from them.

        Returns:
            What came of each that was asked; the last one says whether all were there.
        """
        hits: list[Hit] = []
        for want in wants:
            hit = self.hit(*want)
            hits.append(hit)
            if not hit.admitted:
                for earlier, taken in zip(wants, hits[:-1], strict=False):
                    self.refund(*earlier)
                    taken.remaining += earlier.cost
                break
        return hits
