"""GCRA and its stores."""

from .gcra import Hit
from .limit import RateLimit, limit_name, parse_limits
from .memory import MemoryStore
from .store import LimitStore, Spender, StoreFailure, Want

__all__ = [
    "Hit",
    "LimitStore",
    "MemoryStore",
    "RateLimit",
    "Spender",
    "StoreFailure",
    "Want",
    "limit_name",
    "parse_limits",
]
