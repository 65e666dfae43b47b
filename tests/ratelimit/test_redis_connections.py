from __future__ import annotations

from pathlib import Path

import pytest

from flask_m9m.ratelimit import RateLimit, StoreFailure
from flask_m9m.ratelimit.redis_store import RedisStore
from tests.redis_servers import QUOTED_PASSWORD, RedisServer, running_redis

KEY = b"0123456789abcdef"
SLOW = RateLimit(1, 3600, 5, "slow")

pytestmark = pytest.mark.usefixtures("patient")


def test_a_password_and_a_user_with_few_rights_are_enough(locked_redis: RedisServer) -> None:
    for login in (f":{QUOTED_PASSWORD}", f"limits:{QUOTED_PASSWORD}"):
        store = RedisStore(f"redis://{login}@127.0.0.1:{locked_redis.port}", KEY, login)
        assert store.hit(SLOW, "client").remaining == 4
        store.refund(SLOW, "client")
        assert store.peek(SLOW, "client").remaining == 5
        assert store.hit(SLOW, "client").admitted
        assert len(list(store.spenders())) == 1
        store.reset(SLOW, "client")


def test_a_database_is_chosen_by_its_number(redis_server: RedisServer) -> None:
    store = RedisStore(f"{redis_server.url}/3", KEY, "app")
    store.hit(SLOW, "client")
    assert redis_server.call("DBSIZE") == 0


def test_a_socket_file_is_spoken_to(tmp_path: Path) -> None:
    with running_redis(tmp_path, f"unixsocket {tmp_path}/s") as server:
        store = RedisStore(f"unix://{tmp_path}/s?db=2", KEY, "app")
        assert store.hit(SLOW, "client").remaining == 4
        assert "db2" in server.client().info("keyspace")


def test_tls_needs_a_certificate_that_can_be_verified(
    tls_redis: tuple[int, Path],
) -> None:
    port, certificate = tls_redis
    url = f"rediss://127.0.0.1:{port}"
    by_name = f"rediss://localhost:{port}?ssl_ca_certs={certificate}"

    def hit(url: str) -> str:
        """Return what comes of a hit."""
        try:
            return str(RedisStore(url, KEY, "a").hit(SLOW, "c").admitted)
        except StoreFailure as failure:
            return str(failure)

    assert hit(f"{url}?ssl_ca_certs={certificate}") == "True"
    assert "CERTIFICATE_VERIFY_FAILED" in hit(url)
    assert "CERTIFICATE_VERIFY_FAILED" in hit(by_name)
    assert hit(f"{url}?ssl_cert_reqs=none") == "True"
