"""Boot clock: the time since the machine started, the same in all processes, never adjusted."""

from __future__ import annotations

import sys
import time

if sys.platform == "linux":

    def boot_clock() -> int:
        """Return the microseconds since the machine started, including suspension."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000

else:

    def boot_clock() -> int:
        """Return the microseconds of a monotonic clock."""
        return time.monotonic_ns() // 1_000
