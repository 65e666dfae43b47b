from __future__ import annotations

import time

import pytest


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a Redis store wait for as long as a busy machine takes: what it answers counts."""
    monkeypatch.setattr(
        "flask_m9m.ratelimit.redis_store._deadline", lambda *seconds: time.monotonic() + 30.0
    )
