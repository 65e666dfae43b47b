from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flask_m9m.ratelimit import Want
from flask_m9m.ratelimit.redis_servers import key_slot
from flask_m9m.ratelimit.redis_store import RedisStore
from tests.ratelimit.failing import KEY, LIMIT, answering, failure_of, hit
from tests.redis_servers import (
    RedisServer,
    Watched,
    cluster_node,
    cluster_url,
    free_port,
    meet,
    until,
)


def test_a_cluster_keeps_each_client_on_one_of_its_servers(
    redis_cluster: list[RedisServer],
) -> None:
    store = RedisStore(cluster_url(redis_cluster[:1]), KEY, "kept")
    wants = [Want(LIMIT, f"client {number}") for number in range(40)]
    assert [hit.remaining for hit in store.hit_all(wants)] == [49] * 40
    assert [store.hit(*want).remaining for want in wants] == [48] * 40
    assert all(node.call("DBSIZE") > 0 for node in redis_cluster)
    assert {one.client_id for one in store.spenders()} == {
        store.client_id(LIMIT, want.client) for want in wants
    }
    store.reset(LIMIT, "client 1")
    assert store.peek(LIMIT, "client 1").remaining == 50


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n",
        b"*0\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$1\r\na\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:9\r\n*2\r\n:1\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:9\r\n*2\r\n$1\r\n\xff\r\n:1\r\n",
        b"-ERR This instance has cluster support disabled\r\n",
        b"-MOVED 1 :1\r\n",
    ],
)
def test_a_map_of_slots_that_is_none_is_a_failure(answer: bytes) -> None:
    with answering(answer) as url:
        store = RedisStore(url.replace("redis:", "redis+cluster:"), KEY, "app")
        failure_of(lambda: store.hit(LIMIT, "client"))
        failure_of(lambda: store.hit(LIMIT, "client"))


def test_any_server_that_answers_can_tell_a_clusters_map(redis_cluster: list[RedisServer]) -> None:
    with answering(None) as dead:
        gone = f"127.0.0.1:{free_port()},{dead.removeprefix('redis://')}"
        url = cluster_url(redis_cluster).replace("//", f"//{gone},")
        store = RedisStore(url, KEY, "seeds")
        failure_of(lambda: store.hit(LIMIT, "client"))
        assert store.hit(LIMIT, "client").admitted


class Slot:
    """A slot of a cluster, and a client in it."""

    def __init__(self, store: RedisStore, nodes: list[RedisServer], owner: int) -> None:
        bounds = [0, 5461, 10923, 16384]
        for number in range(100):
            self.client = f"client {number}"
            self.key = store._client_key(LIMIT, self.client)
            self.number = key_slot(self.key)
            if bounds[owner] <= self.number < bounds[owner + 1]:
                break
        self.old = nodes[owner]
        self.new = nodes[(owner + 1) % 3]
        self.nodes = nodes

    def set(self, node: RedisServer, *state: Any) -> None:
        node.call("CLUSTER", "SETSLOT", self.number, *state)

    def begin(self) -> None:
        self.set(self.new, "IMPORTING", node_id(self.old))
        self.set(self.old, "MIGRATING", node_id(self.new))

    def end(self) -> None:
        for node in (self.new, self.old):
            self.set(node, "NODE", node_id(self.new))


def node_id(node: RedisServer) -> str:
    answer = node.call("CLUSTER", "MYID")
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def knows_and_reaches_all(node: RedisServer, newcomer: RedisServer) -> bool:
    nodes = str(node.call("CLUSTER", "NODES"))
    return node_id(newcomer) in nodes and "fail" not in nodes


def test_a_slot_that_moves_is_followed(redis_cluster: list[RedisServer]) -> None:
    store = RedisStore(cluster_url(redis_cluster), KEY, "moving")
    slot = Slot(store, redis_cluster, 0)
    assert store.hit(LIMIT, slot.client).remaining == 49
    slot.begin()
    slot.old.call("MIGRATE", "127.0.0.1", slot.new.port, slot.key, 0, 1000)
    assert store.hit(LIMIT, slot.client).remaining == 48, "ASK"
    slot.end()
    assert store.hit(LIMIT, slot.client).remaining == 47, "MOVED"
    assert store._servers._map[slot.number] == ("127.0.0.1", slot.new.port)
    wants = [Want(LIMIT, slot.client), *(Want(LIMIT, f"other {n}") for n in range(9))]
    assert [hit.remaining for hit in store.hit_all(wants)] == [46, *[49] * 9]


def test_a_killed_node_fails_its_own_clients_only(redis_cluster: list[RedisServer]) -> None:
    store = RedisStore(cluster_url(redis_cluster), KEY, "killed")
    lost, kept = (Slot(store, redis_cluster, owner).client for owner in (2, 1))
    store.hit(LIMIT, lost)
    redis_cluster[2].kill()
    try:
        for _ in range(4):
            failure_of(lambda: store.hit(LIMIT, lost))
            assert store.hit(LIMIT, kept).admitted
    finally:
        redis_cluster[2].start()
    assert until(lambda: hit(store, lost))


def test_a_stopped_node_holds_nobody(redis_cluster: list[RedisServer]) -> None:
    store = RedisStore(cluster_url(redis_cluster), KEY, "stopped")
    lost, kept = (Slot(store, redis_cluster, owner).client for owner in (0, 1))
    redis_cluster[0].pause()
    try:
        failure_of(lambda: store.hit(LIMIT, lost))
        assert until(lambda: hit(store, kept)), "another node has been asked for the map"
    finally:
        redis_cluster[0].resume()
    assert until(lambda: hit(store, lost))


def test_a_replica_that_took_over_its_masters_slots_is_found(
    redis_cluster: list[RedisServer], tmp_path: Path
) -> None:
    with ExitStack() as running:
        master, member = redis_cluster[2], redis_cluster[1]
        replica = cluster_node(tmp_path, running)
        meet(member, replica)
        until(lambda: replica.call("CLUSTER", "REPLICATE", node_id(master)))
        until(lambda: replica.client().info("replication")["master_link_status"] == "up")
        until(lambda: "16384" in str(replica.call("CLUSTER", "INFO")))
        for node in redis_cluster:
            until(lambda node=node: knows_and_reaches_all(node, replica))
        store = RedisStore(cluster_url(redis_cluster), KEY, "replica")
        client = Slot(store, redis_cluster, 2).client
        assert store.hit(LIMIT, client).remaining == 49
        until(lambda: replica.call("DBSIZE"))
        master.kill()
        try:
            failure_of(lambda: store.hit(LIMIT, client))
            assert until(lambda: hit(store, client), 30.0)
            assert ("127.0.0.1", replica.port) in store._servers._map
        finally:
            master.start()
        until(lambda: master.client().info("replication")["role"] == "slave", 30.0)
        assert hit(store, client)


def test_the_new_master_is_found_after_a_failover(watched_redis: Watched) -> None:
    store = RedisStore(watched_redis.url, KEY, "app")
    assert store.hit(LIMIT, "client").admitted
    watched_redis.sentinels[0].kill()
    watched_redis.master.kill()
    failure_of(lambda: store.hit(LIMIT, "client"))
    assert until(lambda: hit(store), 30.0)
    assert watched_redis.replica.call("DBSIZE") >= 1


def test_sentinels_that_are_gone_or_know_no_such_master_are_a_failure(
    watched_redis: Watched,
) -> None:
    store = RedisStore(watched_redis.url.replace("/limits", "/nothing"), KEY, "app")
    assert "no master" in failure_of(lambda: store.hit(LIMIT, "client"))
    for sentinel in watched_redis.sentinels:
        sentinel.pause()
    store = RedisStore(watched_redis.url, KEY, "app")
    for _ in range(3):
        failure_of(lambda: store.hit(LIMIT, "client"))
    for sentinel in watched_redis.sentinels:
        sentinel.resume()
    assert until(lambda: hit(store))


def test_the_master_that_sentinels_name_is_asked(watched_redis: Watched) -> None:
    store = RedisStore(watched_redis.url, KEY, "app")
    assert store.hit(LIMIT, "client").remaining == 49
    assert watched_redis.master.call("DBSIZE") == 1
