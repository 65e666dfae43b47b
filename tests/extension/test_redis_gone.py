"""Redis fails while an app is under load: the policy holds, nobody waits long, and it recovers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask

from flask_m9m import M9M, rate_limit
from flask_m9m.testing import make_settings
from tests.redis_servers import RedisServer, until

THREADS = 4
WAIT = 0.25


class Answer(NamedTuple):
    at: float
    status: int
    seconds: float
    fields: Any


class Load:
    """Clients that ask without a pause, each in a thread."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._stop = threading.Event()
        self.answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(THREADS)]

    def _ask(self, number: int) -> None:
        client = self._app.test_client()
        while not self._stop.is_set():
            begun = time.monotonic()
            answer = client.get("/x", environ_base={"REMOTE_ADDR": f"192.0.2.{number}"})
            seconds = time.monotonic() - begun
            self.answers.append(Answer(begun, answer.status_code, seconds, answer.headers))
            self._stop.wait(0.002)

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def since(self, moment: float) -> list[Answer]:
        return [one for one in self.answers if one.at >= moment]


def app_with(redis: RedisServer, path: Path, **limiting: Any) -> Flask:
    app = Flask("app", instance_path=str(path))
    settings = {
        "enabled": True,
        "requests_per_minute": 60_000,
        "burst": 5_000,
        "storage": "redis",
        "redis_url": redis.url,
        "path": str(path / "limits"),
        **limiting,
    }
    M9M(app, settings=make_settings({"performance": {"rate_limit": settings}}))
    app.add_url_rule("/x", "x", rate_limit("50000/minute", burst=4_000)(lambda: "x"))
    return app


def hits_in(redis: RedisServer) -> int:
    """How many calls of a script the server has answered, and how many of them without an error."""
    stats = redis.client().info("commandstats")
    found = [stats.get(f"cmdstat_{name}", {}) for name in ("evalsha", "eval")]
    return sum(one.get("calls", 0) - one.get("failed_calls", 0) for one in found)


def kill(redis: RedisServer) -> None:
    redis.kill()


def pause(redis: RedisServer) -> None:
    redis.pause()


def fill(redis: RedisServer) -> None:
    redis.config("maxmemory", "1")


def demote(redis: RedisServer) -> None:
    redis.call("REPLICAOF", "127.0.0.1", 1)


def mend(redis: RedisServer) -> None:
    redis.resume()
    if redis.process.poll() is not None:
        redis.start()
    redis.call("REPLICAOF", "NO", "ONE")
    redis.config("maxmemory", "0")


@pytest.mark.parametrize("fail", [kill, pause, fill, demote])
@pytest.mark.parametrize("lease", [1, 20])
def test_the_machine_limits_alone_and_goes_back_by_itself(
    redis_server: RedisServer,
    tmp_path: Path,
    fail: Callable[[RedisServer], None],
    lease: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = app_with(redis_server, tmp_path, lease=lease)
    load = Load(app)
    with load.running():
        until(lambda: len(load.answers) > 50)
        failed = time.monotonic()
        fail(redis_server)
        time.sleep(1.2)
        assert "the store fails, so this machine or process counts alone" in caplog.text
        mend(redis_server)
        before = hits_in(redis_server)
        until(lambda: hits_in(redis_server) > before + 20)
    assert {one.status for one in load.answers} == {200}
    waits = sorted(one.seconds for one in load.since(failed))
    assert len(waits) > 100
    assert waits[-1 - THREADS] < WAIT  # some may have waited for a processor
    assert all("RateLimit" in one.fields for one in load.answers)
    assert len([one for one in caplog.messages if "fails" in one]) == 1
    assert "the store works again" in caplog.messages[-1]


def test_the_machine_admits_no_more_than_its_share(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    limiting = {"requests_per_minute": 60, "burst": 20, "machines": 4}
    app = app_with(redis_server, tmp_path, **limiting)
    redis_server.kill()
    client = app.test_client()
    answers = [client.get("/x") for _ in range(12)]
    assert [one.status_code for one in answers] == [200] * 5 + [429] * 7
    assert answers[0].headers["RateLimit-Policy"].startswith('"default";q=15;w=60')


def test_closed_refuses_until_it_is_back(redis_server: RedisServer, tmp_path: Path) -> None:
    app = app_with(redis_server, tmp_path, on_storage_failure="closed")
    client = app.test_client()
    assert client.get("/x").status_code == 200
    redis_server.pause()
    begun = time.monotonic()
    refused = [client.get("/x") for _ in range(5)]
    assert time.monotonic() - begun < WAIT
    redis_server.resume()
    assert {one.status_code for one in refused} == {503}
    assert {one.headers["Retry-After"] for one in refused} == {"2"}
    assert all(one.json["code"] == "SERVICE_UNAVAILABLE" for one in refused)
    until(lambda: client.get("/x").status_code == 200)


def test_open_lets_everything_pass(redis_server: RedisServer, tmp_path: Path) -> None:
    limiting = {"requests_per_minute": 60, "burst": 2, "on_storage_failure": "open"}
    app = app_with(redis_server, tmp_path, **limiting)
    redis_server.kill()
    client = app.test_client()
    assert [client.get("/x").status_code for _ in range(5)] == [200] * 5


def test_redis_that_is_not_there_does_not_stop_the_start(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    redis_server.kill()
    app = app_with(redis_server, tmp_path)
    client = app.test_client()
    assert client.get("/x").status_code == 200
    redis_server.start()
    until(lambda: client.get("/x") and hits_in(redis_server))


def test_a_flushed_redis_costs_no_more_than_a_burst(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    app = app_with(redis_server, tmp_path, requests_per_minute=1, burst=10, lease=4)
    client = app.test_client()
    admitted = 0
    for number in range(60):
        if number == 30:
            redis_server.flush()
            time.sleep(1.1)  # until a refusal of before is no longer repeated
        admitted += client.get("/x").status_code == 200
    assert 10 < admitted <= 20


def test_other_processes_get_no_name_and_no_address(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    app = app_with(redis_server, tmp_path)
    app.test_client().get("/x", environ_base={"REMOTE_ADDR": "203.0.113.77"})
    keys = redis_server.client().keys("*")
    assert keys
    seen = b" ".join(part for key in keys for part in (key, redis_server.client().get(key)))
    assert b"203.0.113" not in seen
