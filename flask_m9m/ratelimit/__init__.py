"""Rate limits: the algorithm (GCRA), and stores in memory, in shared files and in Redis."""

from .gcra import Hit
from .limit import RateLimit, limit_name, parse_limits
from .memory import MemoryStore
from .store import LimitStore, Spender, StoreFailure, Want
from .stores import LimitStores, limit_stores

__all__ = [
    "Hit",
    "LimitStore",
    "LimitStores",
    "MemoryStore",
    "RateLimit",
    "Spender",
    "StoreFailure",
    "Want",
    "limit_name",
    "limit_stores",
    "parse_limits",
]
