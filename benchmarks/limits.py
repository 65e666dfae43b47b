"""What a hit of a rate limit costs in each store, beside `limits` and `throttled-py`.

All hit one client's limit that is never reached, in rounds that take turns, in one process. The
shared store is hit by four processes at once as well, where processor time is counted, for the
machine may have fewer processors. Redis runs beside it on loopback. At last many distinct
addresses hit the shared store, and its size and one client that was over its limit are looked at
before and after.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import limits
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from throttled import RateLimiterType, Throttled, rate_limiter, store

from flask_m9m.processes.shared_directory import SharedDirectory
from flask_m9m.ratelimit import LimitStore, MemoryStore, RateLimit
from flask_m9m.ratelimit.redis_store import RedisStore
from flask_m9m.ratelimit.shared import SharedStore
from tests.redis_servers import RedisServer

PLENTY = 100_000_000
LEASE = 100
CLIENT = "203.0.113.7"
ROOT = Path(__file__).parents[1]

Hit = Callable[[], object]


def ours(kept: LimitStore) -> Hit:
    # A token lasts longer than a hit takes, or leases would be over before they are spent.
    limit = RateLimit(600_000, 60, PLENTY)
    return lambda: kept.hit(limit, CLIENT)


def of_limits(limiter: MovingWindowRateLimiter | FixedWindowRateLimiter) -> Hit:
    item = limits.RateLimitItemPerMinute(PLENTY)
    return lambda: limiter.hit(item, CLIENT)


def of_throttled(kept: store.BaseStore) -> Hit:
    quota = rate_limiter.per_min(PLENTY, burst=PLENTY)
    throttle = Throttled(using=RateLimiterType.GCRA.value, quota=quota, store=kept)
    return lambda: throttle.limit(CLIENT)


def shared_in(path: Path) -> SharedStore:
    return SharedStore(SharedDirectory(str(path), ("benchmark", "")))


def cases(path: Path, redis: str) -> dict[str, Hit]:
    """Return what is hit, by its name in the table."""
    key, moving = os.urandom(32), RedisStorage(redis, key_prefix="moving")
    return {
        "flask-m9m memory": ours(MemoryStore()),
        "flask-m9m shared": ours(shared_in(path)),
        "limits memory, fixed window": of_limits(FixedWindowRateLimiter(MemoryStorage())),
        "throttled-py memory, GCRA": of_throttled(store.MemoryStore()),
        "flask-m9m redis": ours(RedisStore(redis, key, "one")),
        f"flask-m9m redis, lease {LEASE}": ours(RedisStore(redis, key, "ahead", LEASE)),
        "limits redis, fixed window": of_limits(FixedWindowRateLimiter(RedisStorage(redis))),
        "limits redis, moving window": of_limits(MovingWindowRateLimiter(moving)),
        "throttled-py redis, GCRA": of_throttled(store.RedisStore(server=redis)),
    }


def timed(hit: Hit, hits: int) -> float:
    """Return microseconds a hit."""
    gc.collect()
    begun = time.perf_counter()
    for _ in range(hits):
        hit()
    return (time.perf_counter() - begun) / hits * 1e6


def own_time(path: Path, hits: int) -> float:
    """Return microseconds of processor time that a hit takes this process."""
    hit = ours(shared_in(path))
    hit()
    begun = time.process_time()
    for _ in range(hits):
        hit()
    return (time.process_time() - begun) / hits * 1e6


def together(path: Path, processes: int, hits: int) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.limits", "--own-time", str(path)]
    command += ["--hits", str(hits)]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(processes)
    ]
    return [float(one.communicate()[0]) for one in running]


def flood(path: Path, addresses: int) -> None:
    """Hit with many addresses, and look at what that changed."""
    kept, limit = shared_in(path), RateLimit(60, 60, 10)
    hourly = RateLimit(1, 3_600, 1, "hourly")
    kept.hit(hourly, CLIENT)
    for _ in range(limit.burst):
        kept.hit(limit, CLIENT)
    kept.hit(limit, "10.0.0.0")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = sum(one.stat().st_blocks for one in path.iterdir()) * 512
    begun = time.perf_counter()
    still = 0
    for number in range(addresses):
        kept.hit(
            limit, f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/{number >> 24}"
        )
        kept.hit(hourly, f"2001:db8:{number >> 16:x}:{number & 65_535:x}::/64")
        if not number % 1_000:
            still += kept.hit(hourly, CLIENT).admitted
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = sum(one.stat().st_blocks for one in path.iterdir()) * 512 - size
    print(
        f"\n{addresses:,} addresses and as many networks, {seconds / addresses / 2 * 1e6:.1f} µs a "
        f"hit: the files grew by {grown:,} bytes, the process by {after - before:,} KiB; the "
        f"client over its hourly limit was admitted {still} times"
    )


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--hits", type=int, default=4_000, help="in a round")
    parser.add_argument("--addresses", type=int, default=10_000_000)
    parser.add_argument("--own-time", metavar="PATH", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.own_time:
        print(own_time(Path(options.own_time), options.hits))
        return 0
    names = ("limits", "throttled-py", "redis")
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    print(", ".join(f"{name} {version(name)}" for name in names) + "\n")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:  # where apps have it
        redis = RedisServer(Path(name) / "redis")
        try:
            hits = cases(Path(name) / "limits", redis.url)
            rounds: dict[str, list[float]] = {title: [] for title in hits}
            for _ in range(options.rounds):
                for title, hit in hits.items():
                    few = "redis" in title and "lease" not in title
                    rounds[title].append(timed(hit, options.hits // 10 if few else options.hits))
        finally:
            redis.kill()
        print("| µs a hit | minimum | median |\n|---|---|---|")
        for title, times in rounds.items():
            print(f"| {title} | {min(times):.2f} | {statistics.median(times):.2f} |")
        each = together(Path(name) / "limits", 4, 100_000)
        print(
            f"\nshared, four processes at once, {os.cpu_count()} processors: "
            f"{statistics.mean(each):.2f} µs of processor time a hit"
        )
        flood(Path(name) / "flood", options.addresses)
    return 0


if __name__ == "__main__":
    sys.exit(main())
