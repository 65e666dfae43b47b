"""LimitStore: where the theoretical arrival times are kept."""

from __future__ import annotations

from typing import Protocol

from .gcra import Hit
from .limit import RateLimit


class LimitStore(Protocol):
    """Keeps one number per limit and client and takes tokens atomically."""

    def hit(self, limit: RateLimit, client: str, cost: int = 1) -> Hit:
        """Take `cost` tokens, 1 to `limit.burst`, from this client's bucket."""
        ...

    def refund(self, limit: RateLimit, client: str, cost: int = 1) -> None:
        """Put tokens back that were taken."""
        ...
