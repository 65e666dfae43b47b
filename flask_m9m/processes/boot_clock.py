"""Boot clock: the time since the machine started, the same in all processes, never adjusted."""

from __future__ import annotations

import sys
from time import monotonic_ns

if sys.platform == "linux":
    from time import CLOCK_BOOTTIME, clock_gettime_ns

    def boot_clock() -> int:
        """Return the microseconds since the machine started, including suspension."""
        return clock_gettime_ns(CLOCK_BOOTTIME) // 1_000

else:

    def boot_clock() -> int:
        """Return the microseconds of a monotonic clock."""
        return monotonic_ns() // 1_000
