"""Four gunicorn workers of four threads, and one client that asks as fast as it can."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.flood import BURST, WORKERS, flood, serving
from tests.redis_servers import RedisServer


@pytest.mark.parametrize(
    ("storage", "lease"), [("shared", 1), ("redis", 1), ("redis", 10)], ids=str
)
def test_four_workers_admit_what_one_would(
    storage: str, lease: int, tmp_path: Path, redis_server: RedisServer
) -> None:
    """What is exact on a machine with time to spare (`scripts/bench flood`) is near enough here."""
    options = f"storage={storage!r}, lease={lease}, path={str(tmp_path / 'limits')!r}"
    if storage == "redis":
        options += f", redis_url={redis_server.url!r}"
    factory = f"benchmarks.flood:served('m9m', {options})"
    with serving(tmp_path, factory) as port:
        flooded = flood(port, 2.0)
    assert set(flooded.statuses) == {200, 429}
    assert abs(flooded.statuses[200] - flooded.allowed) < BURST / 2
    assert flooded.statuses[429] > BURST * WORKERS
