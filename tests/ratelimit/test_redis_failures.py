from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from flask_m9m.ratelimit import redis_pool
from flask_m9m.ratelimit.redis_store import RedisStore
from tests.ratelimit.failing import BOUND, KEY, LIMIT, answering, failure_of, hit
from tests.redis_servers import RedisServer, free_port, running_redis, until


@pytest.fixture
def store(redis_server: RedisServer) -> RedisStore:
    """A store with a connection."""
    store = RedisStore(redis_server.url, KEY, "app")
    store.hit(LIMIT, "warm")
    return store


def test_a_stopped_server_holds_nobody_and_is_used_again(
    store: RedisStore, redis_server: RedisServer
) -> None:
    redis_server.pause()
    for _ in range(3):
        assert "in time" in failure_of(lambda: store.hit(LIMIT, "client"))
    redis_server.resume()
    assert until(lambda: hit(store))


def test_a_stopped_server_holds_no_thread_of_many(
    store: RedisStore, redis_server: RedisServer
) -> None:
    redis_server.pause()
    slow = []

    def work(number: int) -> None:
        begun = time.monotonic()
        hit(store, f"client {number}")
        slow.append(time.monotonic() - begun)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(slow) < BOUND
    assert sum(one.name == "m9m-redis" for one in threading.enumerate()) <= 1


def test_a_killed_server_fails_at_once_and_is_used_again_after_its_start(
    store: RedisStore, redis_server: RedisServer
) -> None:
    redis_server.kill()
    failure_of(lambda: store.hit(LIMIT, "client"))
    assert "Connection refused" in failure_of(lambda: store.hit(LIMIT, "client"))
    redis_server.start()
    assert store.hit(LIMIT, "client").remaining == 49


def test_a_connection_that_the_server_closed_while_idle_is_no_failure(
    store: RedisStore, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_pool, "_FRESH_SECONDS", 0.0)
    redis_server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert store.hit(LIMIT, "client").admitted


def test_a_server_whose_memory_is_full_is_a_failure(
    store: RedisStore, redis_server: RedisServer
) -> None:
    redis_server.config("maxmemory", "1")
    assert "memory is full" in failure_of(lambda: store.hit(LIMIT, "client"))
    redis_server.config("maxmemory", "0")
    assert store.hit(LIMIT, "client").admitted


def test_a_server_that_became_a_replica_is_a_failure_and_loses_its_connections(
    store: RedisStore, redis_server: RedisServer
) -> None:
    redis_server.call("REPLICAOF", "127.0.0.1", str(free_port()))
    assert "replica" in failure_of(lambda: store.hit(LIMIT, "client"))
    assert store._servers._pool._idle == []
    redis_server.call("REPLICAOF", "NO", "ONE")
    assert store.hit(LIMIT, "client").admitted


def test_a_wrong_password_is_a_failure_that_does_not_say_it(locked_redis: RedisServer) -> None:
    for login in ("", ":guessed-1@", "nobody:guessed-1@"):
        store = RedisStore(f"redis://{login}127.0.0.1:{locked_redis.port}", KEY, "app")
        reason = failure_of(lambda store=store: store.hit(LIMIT, "client"))
        assert "user name or password" in reason
        assert "guessed" not in reason
        assert str(locked_redis.port) not in reason


def test_a_user_who_may_not_is_a_failure(locked_redis: RedisServer) -> None:
    locked_redis.call("ACL", "SETUSER", "weak", "on", ">weak", "~*", "+get")
    store = RedisStore(f"redis://weak:weak@127.0.0.1:{locked_redis.port}", KEY, "app")
    assert "lacks permission" in failure_of(lambda: store.hit(LIMIT, "client"))


def test_what_was_flushed_is_a_full_bucket(store: RedisStore, redis_server: RedisServer) -> None:
    assert store.hit(LIMIT, "client").remaining == 49
    redis_server.flush()
    assert store.hit(LIMIT, "client").remaining == 49


def test_a_lease_is_spent_while_the_server_is_gone(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, KEY, "app", 10)
    for _ in range(1 + 2 + 4 + 1):  # each time twice as many, and one of the next eight
        store.hit(LIMIT, "client")
    redis_server.kill()
    assert [store.hit(LIMIT, "client").admitted for _ in range(7)] == [True] * 7
    failure_of(lambda: store.hit(LIMIT, "client"))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n",
        b"$-1\r\n",
        b"*2\r\n:1\r\n:2\r\n",
        b"*3\r\n:1\r\n:2\r\n$1\r\nx\r\n",
        b"*3\r\n:1\r\n:2\r\n:x\r\n",
        b"*1\r\n" * 5_000,
        b"*-1\r\n",
        b"\xff\xfe\r\n",
        b"-\r\n",
        b"-NOSCRIPT none\r\n",
        b"-LOADING soon\r\n",
        b"-MASTERDOWN gone\r\n",
        b"-CLUSTERDOWN gone\r\n",
        b"-MOVED 1 127.0.0.1:1\r\n",
        b"-MOVED junk\r\n",
        b"-ERR strange 203.0.113.7\r\n",
    ],
)
def test_any_answer_but_the_scripts_is_a_failure(answer: bytes) -> None:
    with answering(answer) as url:
        store = RedisStore(url, KEY, "app")
        reason = failure_of(lambda: store.hit(LIMIT, "client"))
        assert "203.0.113.7" not in reason
        failure_of(lambda: store.reset(LIMIT, "client"))
        failure_of(lambda: list(store.spenders()))


def test_a_log_in_that_is_never_answered_holds_nobody() -> None:
    with answering(None) as url:
        store = RedisStore(url.replace("//", "//:secret@"), KEY, "app")
        failure_of(lambda: store.hit(LIMIT, "client"))
        begun = time.monotonic()
        failure_of(lambda: store.hit(LIMIT, "client"))
        assert time.monotonic() - begun < 0.1, "while an attempt hangs, the next one fails fast"


def test_a_connection_that_is_never_accepted_holds_nobody() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = []
        for _ in range(4):  # more than the kernel accepts for a process that does not
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(address)
            waiting.append(one)
        store = RedisStore(f"redis://127.0.0.1:{address[1]}", KEY, "app")
        for _ in range(3):
            failure_of(lambda: store.hit(LIMIT, "client"))
        for one in waiting:
            one.close()


def test_a_name_that_is_not_resolved_in_time_holds_nobody_and_one_thread(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = threading.Event()
    resolve = socket.getaddrinfo
    asked = []

    def hang(*args: Any, **options: Any) -> Any:
        asked.append(threading.current_thread())
        assert resolved.wait(10)
        return resolve(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    store = RedisStore(redis_server.url, KEY, "app")
    for _ in range(5):
        failure_of(lambda: store.hit(LIMIT, "client"))
    assert len(asked) == 1
    assert asked[0].daemon
    resolved.set()
    assert until(lambda: hit(store))


def test_a_connection_that_comes_late_serves_the_next_request(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = threading.Event()
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: (resolved.wait(10), resolve(*args))[1])
    store = RedisStore(redis_server.url, KEY, "app")
    failure_of(lambda: store.hit(LIMIT, "client"))
    resolved.set()
    pool = store._servers._pool
    until(lambda: pool._idle)
    monkeypatch.setattr(pool, "_connect", lambda: pytest.fail("it has a connection"))
    assert store.hit(LIMIT, "client").admitted


def test_connections_are_kept_and_made_as_many_as_are_needed(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.url, KEY, "app")
    before = int(redis_server.client().info("stats")["total_connections_received"])
    threads = [
        threading.Thread(target=lambda n=number: [hit(store, f"{n}") for _ in range(50)])
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = int(redis_server.client().info("stats")["total_connections_received"]) - before - 1
    assert 1 <= made <= 9


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_speaks_on_its_own_connections(
    store: RedisStore, redis_server: RedisServer
) -> None:
    leased = RedisStore(redis_server.url, KEY, "leased", 10)
    for _ in range(8):
        leased.hit(LIMIT, "client")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            forgotten = store._servers._pool._idle == []
            fine = all(store.hit(LIMIT, "child").admitted for _ in range(20))
            asks = leased.hit(LIMIT, "client").remaining < 50 - 14
            os.write(write, bytes([forgotten, fine, asks]))
        finally:
            os._exit(0)
    remaining = [store.hit(LIMIT, "parent").remaining for _ in range(20)]
    os.waitpid(child, 0)
    assert os.read(read, 3) == b"\1\1\1"
    assert remaining == list(range(49, 29, -1))
    assert store.hit(LIMIT, "child").remaining == 29
    os.close(read)
    os.close(write)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_a_connection_hangs_makes_its_own(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = threading.Event()
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: (resolved.wait(10), resolve(*args))[1])
    store = RedisStore(redis_server.url, KEY, "app")
    failure_of(lambda: store.hit(LIMIT, "client"))
    child = os.fork()
    if child == 0:
        socket.getaddrinfo = resolve
        os._exit(0 if hit(store) else 1)
    assert os.waitpid(child, 0)[1] == 0
    resolved.set()


def test_a_server_that_is_not_there_at_the_start_is_used_once_it_is(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        server.kill()
        store = RedisStore(server.url, KEY, "app")
        failure_of(lambda: store.hit(LIMIT, "client"))
        server.start()
        assert store.hit(LIMIT, "client").admitted


def test_a_request_that_waits_gets_a_connection_that_another_gives_back(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = store._servers._pool
    connection = pool._take(time.monotonic() + 1)
    ended = threading.Event()
    monkeypatch.setattr(pool, "_connect", lambda: ended.wait(10) and connection)
    admitted = []
    waiting = threading.Thread(target=lambda: admitted.append(hit(store)))
    waiting.start()
    until(lambda: pool._waiting)
    pool._give_back(connection, [])
    waiting.join()
    assert admitted == [True]
    ended.set()


def test_more_idle_connections_than_are_of_use_are_closed(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_pool, "_MOST_IDLE", 0)
    assert [hit(store) for _ in range(3)] == [True] * 3
    assert store._servers._pool._idle == []


def test_a_process_that_may_start_no_thread_is_a_failure(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStore(redis_server.url, KEY, "app")
    with monkeypatch.context() as patch:

        def refuse(*_: Any) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", refuse)
        assert "no thread" in failure_of(lambda: store.hit(LIMIT, "client"))
    assert store.hit(LIMIT, "client").admitted
