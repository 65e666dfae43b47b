"""Several processes over one database: how soon a revocation holds, and what that costs."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any, NamedTuple

import pytest

from .conftest import THREADS, WORKERS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")

PROPAGATION = 1.0
SLACK = 0.1
REQUESTS = 10_000
CLIENTS = 8
BATCH_INTERVAL = 60.0
LONGEST_BATCH = 6  # SQLite: its timeout read, set and set back, BEGIN, UPDATE, COMMIT
OPENING = 2  # whether the table of the schema's version is there, and what stands in it
LEARNED = {"api_key": "key", "token": "revocations"}
"""What a worker asks for once that does not know a credential of this kind yet."""
Headers = dict[str, str]


class Answer(NamedTuple):
    """One answer, from which worker, and when its request started."""

    started: float
    worker: int
    status: int
    body: Any


class Browser:
    """A connection that is kept alive."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60.0)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, headers: Headers) -> Answer:
        started = time.monotonic()
        self._connection.request(method, path, headers=headers)
        answer = self._connection.getresponse()
        body = json.loads(answer.read())
        return Answer(started, int(answer.headers["X-Worker"]), answer.status, body)


def ask(port: int, path: str, headers: Headers | None = None, method: str = "GET") -> Answer:
    """Ask over a new connection, which any worker may take."""
    with Browser(port) as browser:
        return browser.ask(method, path, headers or {})


def every_worker(port: int, path: str, headers: Headers | None = None) -> dict[int, Answer]:
    """Ask until each worker has answered; return the first answer of each."""
    answers: dict[int, Answer] = {}
    deadline = time.monotonic() + 15.0
    while len(answers) < WORKERS:
        assert time.monotonic() < deadline, f"{len(answers)} of {WORKERS} workers answered"
        answer = ask(port, path, headers)
        answers.setdefault(answer.worker, answer)
    return answers


def poll(port: int, headers: Headers, enough: Callable[[Sequence[Answer]], bool]) -> list[Answer]:
    """Ask over many connections at once until it is enough."""
    answers: list[Answer] = []
    done = threading.Event()

    def go_on() -> None:
        while not done.is_set():
            answers.append(ask(port, "/protected", headers))

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(go_on) for _ in range(CLIENTS)]
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline and not enough(list(answers)):
            time.sleep(0.02)
        done.set()
        for one in running:
            one.result()
    return answers


def all_asked_after(bound: float) -> Callable[[Sequence[Answer]], bool]:
    """Tell of answers whether each worker has got a request that started later."""
    return lambda answers: len({one.worker for one in answers if one.started > bound}) == WORKERS


@pytest.mark.parametrize("kind", LEARNED)
def test_what_one_worker_revokes_all_refuse_within_the_propagation(port: int, kind: str) -> None:
    made = ask(port, f"/credentials/{kind}", method="POST").body
    headers = made["headers"]
    known = every_worker(port, "/protected", headers)
    assert {answer.status for answer in known.values()} == {200}

    revoked = ask(port, f"/credentials/{kind}/{made['name']}", method="DELETE")
    assert revoked.status == 200
    committed = revoked.body["committed_before"]
    bound = committed + PROPAGATION + SLACK
    answers = poll(port, headers, all_asked_after(bound))
    late = [answer for answer in answers if answer.started > bound]
    assert {answer.worker for answer in late} == set(known)
    assert {answer.status for answer in late} == {401}
    assert {answer.status for answer in answers} <= {200, 401}
    assert {answer.worker for answer in answers if answer.status == 401} == set(known)
    own = [answer for answer in answers if answer.worker == revoked.worker]
    assert {answer.status for answer in own if answer.started > committed} == {401}


@pytest.mark.parametrize("kind", LEARNED)
def test_ten_thousand_requests_cost_a_query_a_second_and_worker(port: int, kind: str) -> None:
    headers = ask(port, f"/credentials/{kind}", method="POST").body["headers"]
    before = every_worker(port, "/statements")
    begin = time.monotonic()
    every_worker(port, "/protected", headers)
    statuses: Counter[int] = Counter()

    def use(count: int) -> Counter[int]:
        with Browser(port) as browser:
            return Counter(browser.ask("GET", "/protected", headers).status for _ in range(count))

    with ThreadPoolExecutor(CLIENTS) as pool:
        for found in pool.map(use, [REQUESTS // CLIENTS] * CLIENTS):
            statuses += found
    elapsed = time.monotonic() - begin
    assert statuses == {200: REQUESTS}

    after = every_worker(port, "/statements")
    assert set(after) == set(before)
    for worker, answer in after.items():
        executed = answer.body[len(before[worker].body) :]
        batch = (int(elapsed / BATCH_INTERVAL) + 1) * LONGEST_BATCH if kind == "api_key" else 0
        check_cost(executed, elapsed, LEARNED[kind], opening=OPENING, batch=batch)


def test_a_revoked_token_costs_each_worker_a_look_up(port: int) -> None:
    made = ask(port, "/credentials/token", method="POST").body
    known = every_worker(port, "/protected", made["headers"])
    assert {answer.status for answer in known.values()} == {200}
    assert ask(port, f"/credentials/token/{made['name']}", method="DELETE").status == 200
    before = every_worker(port, "/statements")
    begin = time.monotonic()
    answers = poll(port, made["headers"], all_asked_after(begin + PROPAGATION + SLACK))
    elapsed = time.monotonic() - begin
    assert {answer.worker for answer in answers if answer.status == 401} == set(known)
    for worker, answer in every_worker(port, "/statements").items():
        check_cost(answer.body[len(before[worker].body) :], elapsed, "revocation")


def check_cost(executed: Sequence[str], elapsed: float, learning: str, **others: int) -> None:
    """Check what one worker asked its database in so many seconds of requests with one credential.

    Allowed are: reads of the feed, one when the first request comes and one each further
    `propagation`; and once, by each thread that comes before it is known, what the worker has to
    learn: the key, the revocations, or the one that changed. Nothing else but `others`.

    Args:
        executed: the statements.
        elapsed: seconds.
        learning: the kind of what is asked once.
        others: how many more there may be of a kind: `opening`, in a worker that has not used the
            database before; `batch`, when keys were used, after the first read and each minute.
    """
    kinds = Counter(kind_of(statement) for statement in executed)
    allowed = {"feed": int(elapsed / PROPAGATION) + 1, learning: THREADS, **others}
    over = {kind: count for kind, count in kinds.items() if count > allowed.get(kind, 0)}
    assert not over, (over, allowed, executed)
    assert kinds["feed"] >= 1
    assert kinds[learning] >= 1


def kind_of(statement: str) -> str:
    words = " ".join(statement.split())
    if words.startswith("SELECT m9m_changes."):
        return "feed"
    if words.startswith("SELECT m9m_api_keys."):
        return "key"
    if words.startswith("SELECT m9m_revocations."):
        return "revocation" if " WHERE m9m_revocations.name = " in words else "revocations"
    if "m9m_alembic_version" in words or "pg_catalog" in words:
        return "opening"
    batch = ("BEGIN", "COMMIT", "SET LOCAL lock_timeout", "SELECT pg_advisory_xact_lock")
    if words.startswith((*batch, "PRAGMA busy_timeout", "UPDATE m9m_api_keys SET last_used_at")):
        return "batch"
    return words
