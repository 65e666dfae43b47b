"""What a request costs under flask-m9m, beside bare Flask and four extensions together.

One view, three apps in one process: bare Flask; Flask-JWT-Extended + Flask-CORS +
Flask-Limiter + Flask-Talisman; flask-m9m with JWT, CORS, rate limit and headers. Rounds are
interleaved, so that a machine that slows down slows all three. flask-m9m counts in the store that
all processes of a machine share, its default, and Flask-Limiter in the memory of one. Figures are
microseconds a request through the app's WSGI callable, the minimum and the median of the rounds;
overheads are medians less bare Flask's.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import platform
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

from flask import Flask
from flask_cors import CORS
from flask_jwt_extended import JWTManager, create_access_token, jwt_required
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_talisman import Talisman
from werkzeug.test import EnvironBuilder

from flask_m9m import M9M, require_auth

ORIGIN = "https://app.example.com"
PEERS = ("Flask-JWT-Extended", "Flask-CORS", "Flask-Limiter", "Flask-Talisman")
PLENTY = 900_000_000
START = time.time()
IN_MEMORY = "a known token, limits in memory"
IN_SHARED_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # as by default
LIMITS = Path(tempfile.mkdtemp(prefix="m9m-limits-", dir=IN_SHARED_MEMORY))
atexit.register(shutil.rmtree, LIMITS, ignore_errors=True)
Environ = dict[str, Any]


def bare(routes: int = 1) -> Flask:
    app = Flask("bare")
    add_views(app, routes, lambda view: view)
    return app


def peers(secret: str, limit: str) -> Flask:
    app = Flask("peers")
    app.config.update(JWT_SECRET_KEY=secret)
    JWTManager(app)
    CORS(app, origins=[ORIGIN], supports_credentials=True)
    Limiter(
        get_remote_address,
        app=app,
        default_limits=[limit],
        storage_uri="memory://",
        headers_enabled=True,
    )
    Talisman(app, force_https=False, session_cookie_secure=False)
    add_views(app, 1, jwt_required())
    return app


def m9m(
    secret: str,
    per_minute: int,
    *,
    routes: int = 1,
    origins: int = 1,
    clock: Callable[[], float] | None = None,
    storage: str = "shared",
) -> tuple[Flask, M9M]:
    app = Flask("m9m")
    others = [f"https://app-{number}.example.net" for number in range(origins - 1)]
    extension = M9M(
        app,
        clock=clock,
        settings={
            "security": {
                "jwt": {"secret": secret},
                "cors": {"allowed_origins": [*others, ORIGIN], "allow_credentials": True},
            },
            "performance": {
                "rate_limit": {
                    "enabled": True,
                    "requests_per_minute": per_minute,
                    "burst": per_minute,
                    "storage": storage,
                    "path": str(LIMITS),
                }
            },
        },
    )
    add_views(app, routes, require_auth)
    return app, extension


def add_views(app: Flask, count: int, protect: Callable[[Any], Any]) -> None:
    def view() -> Callable[[], dict[str, object]]:
        def items() -> dict[str, object]:
            return {"data": [1, 2, 3], "total": 3}

        return items

    for number in range(1, count):
        app.add_url_rule(f"/items-{number}", f"items_{number}", protect(view()))
    app.add_url_rule("/items", "items", protect(view()))


def request(method: str = "GET", **headers: str) -> Environ:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    builder = EnvironBuilder(
        "/items",
        method=method,
        headers={"Origin": ORIGIN, **sent},
        environ_base={"REMOTE_ADDR": "127.0.0.1"},
    )
    return builder.get_environ()


def preflight() -> Environ:
    return request(
        "OPTIONS",
        Access_Control_Request_Method="GET",
        Access_Control_Request_Headers="authorization",
    )


def with_token(token: str) -> Environ:
    return request(Authorization=f"Bearer {token}")


def slow_clock() -> float:
    """A clock on which a limit of one a minute stays used up for the whole run."""
    return START + (time.time() - START) / 10_000


class Case:
    """One app under one kind of request."""

    def __init__(self, app: Flask, environs: list[Environ], expect: int) -> None:
        self._app = app
        self._environs: Iterator[Environ] = cycle(environs)
        self._expect = str(expect)
        self.rounds: list[float] = []

    def run(self, requests: int) -> None:
        environs = [dict(next(self._environs)) for _ in range(requests)]
        app, statuses = self._app, []

        def start_response(status: str, headers: object, exc_info: object = None) -> None:
            statuses.append(status)

        begin = time.perf_counter()
        while environs:  # as in a server, nothing of a request outlives it
            body = app(environs.pop(), start_response)
            for _ in body:
                pass
            body.close()
        self.rounds.append((time.perf_counter() - begin) / requests * 1e6)
        if {status[:3] for status in statuses} != {self._expect}:
            raise SystemExit(f"{app.name}: {set(statuses)} instead of {self._expect}")

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


def measure(cases: dict[Any, Case], rounds: int, requests: int) -> None:
    gc.collect()
    gc.freeze()  # thousands of prepared tokens and three apps are no part of a request
    for _ in range(rounds):
        for case in cases.values():
            case.run(requests)


def side_by_side(rounds: int, requests: int) -> dict[tuple[str, str], Case]:
    secret = secrets.token_urlsafe(48)
    bare_app, peer_app = bare(), peers(secret, f"{PLENTY} per minute")
    m9m_app, extension = m9m(secret, PLENTY)
    crowded_app, memory_app = m9m(secret, PLENTY)[0], m9m(secret, PLENTY, storage="memory")[0]
    spent = rounds * requests + requests
    with m9m_app.app_context():
        ours = [extension.tokens.issue(f"user-{number}") for number in range(spent)]
    with peer_app.app_context():
        theirs = [create_access_token(f"user-{number}") for number in range(spent)]
    limited_peer, (limited_m9m, _) = peers(secret, "1 per day"), m9m(secret, 1, clock=slow_clock)
    plain = [request()]
    cases = {
        ("bare", "a known token"): Case(bare_app, plain, 200),
        ("peers", "a known token"): Case(peer_app, [with_token(theirs[0])], 200),
        ("m9m", "a known token"): Case(m9m_app, [with_token(ours[0])], 200),
        ("m9m", IN_MEMORY): Case(memory_app, [with_token(ours[0])], 200),
        ("peers", "a token not seen before"): Case(peer_app, [*map(with_token, theirs[1:])], 200),
        ("m9m", "a token not seen before"): Case(crowded_app, [*map(with_token, ours[1:])], 200),
        ("peers", "401"): Case(peer_app, plain, 401),
        ("m9m", "401"): Case(m9m_app, plain, 401),
        ("peers", "429"): Case(limited_peer, [with_token(theirs[0])], 429),
        ("m9m", "429"): Case(limited_m9m, [with_token(ours[0])], 429),
        ("peers", "a preflight"): Case(peer_app, [preflight()], 200),
        ("m9m", "a preflight"): Case(m9m_app, [preflight()], 204),
    }
    for app in (limited_peer, limited_m9m):
        app.test_client().get("/items", headers={"Authorization": "Bearer none"})
    measure(cases, rounds, requests)
    return cases


def growth(rounds: int, requests: int) -> tuple[float, float]:
    """Return what flask-m9m adds to one route and origin, and to a thousand of each."""
    secret = secrets.token_urlsafe(48)
    cases = {}
    for size in (1, 1000):
        app, extension = m9m(secret, PLENTY, routes=size, origins=size)
        with app.app_context():
            token = extension.tokens.issue("user")
        cases["m9m", size] = Case(app, [with_token(token)], 200)
        cases["bare", size] = Case(bare(routes=size), [request()], 200)
    measure(cases, rounds, requests)
    small, large = (cases["m9m", n].median - cases["bare", n].median for n in (1, 1000))
    return small, large


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--requests", type=int, default=500, help="in a round")
    options = parser.parse_args()
    logging.disable(logging.WARNING)

    cases = side_by_side(options.rounds, options.requests)
    floor = cases["bare", "a known token"]
    packages = ", ".join(f"{name} {version(name)}" for name in ("Flask", "Werkzeug", *PEERS))
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    print(packages)
    print(f"bare Flask: {min(floor.rounds):.1f} µs minimum, {floor.median:.1f} µs median\n")
    print("| µs a request | four extensions | flask-m9m | overhead: four | m9m | ratio |")
    print("|---|---|---|---|---|---|")
    for kind in dict.fromkeys(kind for _, kind in cases):
        theirs = cases["peers", "a known token" if kind == IN_MEMORY else kind]
        ours = cases["m9m", kind]
        their_cost, our_cost = theirs.median - floor.median, ours.median - floor.median
        ratio = f"1/{their_cost / our_cost:.1f}" if our_cost > 0 else "below bare"
        print(
            f"| {kind} | {min(theirs.rounds):.1f} · {theirs.median:.1f} "
            f"| {min(ours.rounds):.1f} · {ours.median:.1f} "
            f"| {their_cost:.1f} | {our_cost:.1f} | {ratio} |"
        )
    small, large = growth(options.rounds // 2, options.requests)
    print(f"\nadded to one route and one origin {small:.1f} µs, to 1,000 of each {large:.1f} µs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
