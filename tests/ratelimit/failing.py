"""Redis that fails: how a call has to fail then, and a server that answers nonsense."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flask_m9m.ratelimit import RateLimit, StoreFailure
from flask_m9m.ratelimit.redis_store import RedisStore

KEY = b"0123456789abcdef"
LIMIT = RateLimit(1, 3600, 50)
BOUND = 0.4


def failure_of(call: Callable[[], Any]) -> str:
    """Return why a call fails, which it has to do in time."""
    begun = time.monotonic()
    with pytest.raises(StoreFailure) as caught:
        call()
    assert time.monotonic() - begun < BOUND
    return str(caught.value)


def hit(store: RedisStore, client: str = "client") -> bool:
    try:
        return store.hit(LIMIT, client).admitted
    except StoreFailure:
        return False


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """The URL of a server that answers everything with the same bytes, or nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as front:

        def serve() -> None:
            while True:
                try:
                    one, _ = front.accept()
                except OSError:
                    return
                threading.Thread(target=answer_all, args=(one,), daemon=True).start()

        def answer_all(one: socket.socket) -> None:
            with one:
                while one.recv(65_536):
                    if answer is not None:
                        one.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{front.getsockname()[1]}"
        front.shutdown(socket.SHUT_RDWR)
