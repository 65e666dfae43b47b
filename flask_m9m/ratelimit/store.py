"""LimitStore: the interface of stores of rate limits, and their failures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .gcra import Hit
from .limit import RateLimit


class StoreFailure(Exception):
    """A store cannot tell whether tokens are left: it is unreachable, slow, full or damaged.

    Attributes:
        unsafe: whether another user may have caused it; then the policy `closed` applies in
            place of any other.
    """

    def __init__(self, reason: str, *, unsafe: bool = False) -> None:
        super().__init__(reason)
        self.unsafe = unsafe


class Want(NamedTuple):
    """Tokens that a request needs: the bucket's limit and client, and how many."""

    limit: RateLimit
    client: str
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Spender:
    """A client that has used some of a limit.

    Attributes:
        limit: the limit.
        client_id: the store's identifier of the client, as `LimitStore.client_id` returns it.
        hit: the result that its next request would get.
    """

    limit: RateLimit
    client_id: str
    hit: Hit


class LimitStore(ABC):
    """Keeps a theoretical arrival time per limit and client, and takes tokens atomically.

    Every method raises `StoreFailure` if the store cannot be used.

    Attributes:
        shared: whether other processes, such as the command line, see the same counts.
        where: who shares the counts, in words that follow "counted".
        failures: how often the store has failed in this process.
    """

    shared = True
    where: str
    failures = 0

    def prepare(self, limits: Iterable[RateLimit]) -> None:  # noqa: B027  # most have nothing to do
        """Check, as far as possible, that the store can keep these limits.

        Raises:
            SettingsError: the store's files or directory are not safe to use.
        """

    def was_slow(self) -> bool | None:
        """Tell whether a server answered this thread's last call slowly; `None`: it asked none."""
        return None

    @abstractmethod
    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""

    @abstractmethod
    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        """Put back tokens that were taken."""

    @abstractmethod
    def peek(self, limit: RateLimit, client: str) -> Hit:
        """Return the result that the client's next request would get, and take nothing."""

    @abstractmethod
    def reset(self, limit: RateLimit, client: str) -> None:
        """Fill the client's bucket."""

    @abstractmethod
    def client_id(self, limit: RateLimit, client: str) -> str:
        """Return the store's identifier of a client, from which nobody else can tell who it is."""

    @abstractmethod
    def spenders(self) -> Iterable[Spender]:
        """Return the clients whose buckets are not full, in no order."""

    def hit_all(self, wants: Sequence[Want]) -> list[Hit]:
        """Take tokens from several buckets, up to the first that has too few.

        If a bucket has too few, the tokens taken from the others are put back.

        Returns:
            The result of each bucket that was asked; the last tells whether all had enough.
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
