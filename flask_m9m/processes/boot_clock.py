"""The boot-time clock, which all processes of a machine share and nobody can set."""

from __future__ import annotations

import sys
import time

if sys.platform == "linux":

    def boot_clock() -> int:
        """Return the microseconds since the machine was started, suspension included."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000

else:

    def boot_clock() -> int:
        """Return microseconds of a clock that never steps back."""
        return time.monotonic_ns() // 1_000
