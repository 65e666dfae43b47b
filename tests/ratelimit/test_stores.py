from __future__ import annotations

import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_m9m import M9M
from flask_m9m.errors import SettingsError
from flask_m9m.ratelimit import LimitStores, MemoryStore, RateLimit, limit_stores
from flask_m9m.ratelimit.failover import Failover
from flask_m9m.settings import settings_of
from flask_m9m.testing import Clock, make_settings
from tests.redis_servers import RedisServer

LIMIT = RateLimit(60, 60, 4)


def stores(*, private: bool = False, **settings: Any) -> LimitStores:
    limiting = settings_of({"performance": {"rate_limit": settings}}).performance.rate_limit
    app = ("app", "/instance")
    return limit_stores(limiting, app, key=b"k" * 32, private=private, clock=time.monotonic)


def app_in(path: Path, policy: str) -> Flask:
    app = Flask("app")
    limiting = {"enabled": True, "path": str(path), "on_storage_failure": policy}
    M9M(app, settings=make_settings({"performance": {"rate_limit": limiting}}))
    return app


def test_memory_and_tests_have_counts_of_their_own(shared_memory: Path) -> None:
    for kept in (stores(storage="memory"), stores(private=True)):
        assert isinstance(kept.limits, MemoryStore)
        assert not kept.limits.shared
        assert kept.limits.where == "by each process alone"
        kept.limits.hit(LIMIT, "client")
    assert not list(shared_memory.iterdir())


def test_an_app_with_a_clock_counts_alone(shared_memory: Path, clock: Clock) -> None:
    app = Flask("app")
    limiting = {"enabled": True, "requests_per_minute": 1, "burst": 1}
    M9M(app, settings=make_settings({"performance": {"rate_limit": limiting}}), clock=clock)
    app.test_client().get("/")
    assert not list(shared_memory.iterdir())


def test_the_default_is_shared(shared_memory: Path) -> None:
    kept = stores()
    assert kept.limits.shared
    assert kept.limits.where == kept.attempts.where == "by all workers of this machine"
    kept.limits.hit(LIMIT, "client")
    assert stores().attempts.peek(LIMIT, "client").remaining == 3
    assert len(list(shared_memory.iterdir())) == 1


@pytest.mark.parametrize("policy", ["local", "closed", "open"])
def test_attempts_are_counted_whatever_the_policy(tmp_path: Path, policy: str) -> None:
    kept = stores(path=str(tmp_path / "missing" / "limits"), on_storage_failure=policy)
    assert sum(kept.attempts.hit(LIMIT, "account").admitted for _ in range(10)) == 4


def test_without_locks_memory_is_used_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    for name in ("processes.shared_directory", "ratelimit.shared", "ratelimit.shared_file"):
        monkeypatch.delitem(sys.modules, f"flask_m9m.{name}", raising=False)
    assert isinstance(stores().limits, MemoryStore)
    assert "rate limits are counted by each process alone" in caplog.text


def test_without_a_place_for_files_memory_is_used_and_that_is_said(
    shared_memory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    shared_memory.rmdir()
    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert isinstance(stores().limits, MemoryStore)
    assert "No usable temporary directory" in caplog.text


def test_without_redis_py_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(SettingsError, match=r"pip install 'flask-m9m\[redis\]'"):
        stores(storage="redis", redis_url="redis://127.0.0.1")


def keys_made(redis_server: RedisServer, **settings: Any) -> list[bytes]:
    app = Flask("app")
    limiting = {
        "enabled": True,
        "storage": "redis",
        "redis_url": redis_server.url,
        **settings.pop("limiting", {}),
    }
    M9M(app, settings={"performance": {"rate_limit": limiting}, **settings})
    app.test_client().get("/")
    keys = sorted(redis_server.client().keys("m9m:rl:*"))
    redis_server.flush()
    return keys


def test_clients_are_hashed_under_a_secret_of_their_own_where_there_is_no_other(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    jwt = {"security": {"jwt": {"secret": "j" * 16 + "0123456789abcdef"}}}
    own = {"limiting": {"secret": "o" * 16 + "0123456789abcdef"}}
    with_jwt, with_own = keys_made(redis_server, **jwt), keys_made(redis_server, **own)
    assert keys_made(redis_server, **jwt, **own) == with_own != with_jwt
    assert "performance.rate_limit.secret" not in caplog.text
    without = keys_made(redis_server, security={"jwt": {"enabled": False}})
    assert without not in (with_jwt, with_own)
    assert caplog.text.count("performance.rate_limit.secret is not set") == 1


def test_a_short_secret_for_clients_stops_the_start() -> None:
    with pytest.raises(SettingsError, match=r"performance\.rate_limit\.secret.*at least 32 bytes"):
        settings_of({"performance": {"rate_limit": {"secret": "short"}}})


def test_redis_is_not_asked_before_a_request_needs_it(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.DEBUG):
        kept = stores(storage="redis", redis_url="redis://127.0.0.1:1", path=str(tmp_path / "x"))
    assert isinstance(kept.limits, Failover)
    assert kept.limits.where == "by all machines (Redis)"
    assert not caplog.records
    assert kept.limits.failures == 0
    assert kept.limits.hit(LIMIT, "client").admitted
    assert kept.limits.failures == 1


def test_while_no_file_can_be_made_a_closed_policy_answers_503(tmp_path: Path) -> None:
    client = app_in(tmp_path / "missing" / "limits", "closed").test_client()
    for _ in range(2):
        response = client.get("/")
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "2"
        assert response.json["code"] == "SERVICE_UNAVAILABLE"
        assert str(tmp_path) not in response.text


@pytest.mark.parametrize("policy", ["local", "closed", "open"])
def test_what_is_planted_while_it_runs_answers_503_whatever_the_policy(
    tmp_path: Path, policy: str
) -> None:
    path = tmp_path / "limits"
    client = app_in(path, policy).test_client()
    assert client.get("/").status_code == 404
    path.chmod(0o777)
    time.sleep(1.01)
    response = client.get("/")
    assert response.status_code == 503
    assert str(tmp_path) not in response.text
