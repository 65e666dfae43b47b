"""GCRA and its stores."""

from .gcra import Hit
from .limit import RateLimit, limit_name, parse_limits
from .memory import MemoryStore
from .store import LimitStore

__all__ = ["Hit", "LimitStore", "MemoryStore", "RateLimit", "limit_name", "parse_limits"]
