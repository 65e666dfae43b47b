"""Clients of a soak: what each does over and over, and what it has to be answered."""

from __future__ import annotations

import json
import random
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple

from flask_m9m.auth.jwt.issuer import Issuer
from flask_m9m.auth.jwt.signing_keys import SigningKey, SigningKeyRing

PASSWORD = "correct horse battery"
ORIGIN = "https://app.example.com"
USERS = 8
_ADDRESSES = 8_192  # more than the server's caches keep


class Answer(NamedTuple):
    """An answer: its status, its fields and what its JSON is."""

    status: int
    fields: Any
    body: Any


class Client(threading.Thread):
    """Does one kind of work over and over, until it is told to end.

    Args:
        work: what it does.
        port: where the server listens.
        pause: seconds between two rounds.
        ended: when to end.
    """

    def __init__(
        self, work: Callable[[Client], None], port: int, pause: float, ended: threading.Event
    ) -> None:
        super().__init__(name=work.__name__, daemon=True)
        self.work = work
        self.port = port
        self.pause = pause
        self.ended = ended
        self.random = random.Random(work.__name__)
        self.answers: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self._connection: HTTPConnection | None = None

    def run(self) -> None:
        while not self.ended.wait(self.pause):
            try:
                self.work(self)
            except (OSError, HTTPException, ValueError, KeyError) as error:
                self.forget()
                if self.ended.is_set():
                    break
                self.faults[f"{self.name}: {type(error).__name__}: {error}"[:120]] += 1
        self.forget()

    def ask(
        self, method: str, path: str, *expected: int, body: Any = None, **fields: str
    ) -> Answer:
        """Send a request from an address of its own, and see that the status is expected."""
        if self._connection is None:
            self._connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        number = self.random.randrange(_ADDRESSES)
        headers = {
            "X-Forwarded-For": f"203.0.{113 + number // 256}.{number % 256}",
            **{name.replace("_", "-"): value for name, value in fields.items()},
        }
        octets = None
        if body is not None:
            octets, headers["Content-Type"] = json.dumps(body), "application/json"
        self._connection.request(method, path, octets, headers)
        response = self._connection.getresponse()
        text = response.read()
        if response.will_close:
            self.forget()
        self.answers[response.status] += 1
        if response.status not in expected:
            self.faults[f"{self.name}: {method} {path.split('/')[1]} is {response.status}"] += 1
        is_json = (response.headers["Content-Type"] or "").startswith("application/json")
        return Answer(response.status, response.headers, json.loads(text) if is_json else None)

    def forget(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def log_in(self) -> dict[str, Any]:
        """Log in as one of the users; while all turns to verify are taken, the answer is 503."""
        name = f"user{self.random.randrange(USERS)}"
        body = {"username": name, "password": PASSWORD}
        answer = self.ask("POST", "/api/v1/auth/login", 200, 503, body=body)
        while answer.status == 503 and not self.ended.wait(0.5):
            answer = self.ask("POST", "/api/v1/auth/login", 200, 503, body=body)
        session: dict[str, Any] = answer.body
        return session


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def sessions(client: Client) -> None:
    """Log in, work, refresh, spend the refresh token twice, log out."""
    session = client.log_in()
    for _ in range(10):
        client.ask("GET", "/items", 200, **bearer(session["token"]))
    body = {"refreshToken": session["refreshToken"]}
    fresh = client.ask("POST", "/api/v1/auth/refresh", 200, body=body)
    client.ask("POST", "/api/v1/auth/refresh", 409, body=body)
    if fresh.status == 200:
        client.ask("POST", "/api/v1/auth/logout", 204, **bearer(fresh.body["token"]))
    wrong = {"username": "x", "password": "wrong"}
    client.ask("POST", "/api/v1/auth/login", 401, 429, 503, body=wrong)


def keys(client: Client) -> None:
    """Make keys, use them, revoke them."""
    owner = bearer(client.log_in()["token"])
    for _ in range(5):
        body = {"name": "soak", "scopes": ["items"]}
        made = client.ask("POST", "/api/v1/api-keys", 201, body=body, **owner).body
        for _ in range(10):
            client.ask("GET", "/items", 200, X_API_Key=made["key"])
        client.ask("GET", "/api/v1/api-keys", 200, **owner)
        client.ask("DELETE", f"/api/v1/api-keys/{made['id']}", 204, **owner)


def credentials(client: Client) -> None:
    """Store credentials, read them, change them, delete them."""
    owner, path = bearer(client.log_in()["token"]), "/api/v1/credentials"
    for _ in range(5):
        body = {"name": "soak", "type": "slackApi", "data": {"accessToken": secrets.token_hex()}}
        made = client.ask("POST", path, 201, body=body, **owner).body["id"]
        client.ask("PUT", f"{path}/{made}", 200, body={"data": {"accessToken": "new"}}, **owner)
        client.ask("POST", f"{path}/{made}/test", 200, **owner)
        client.ask("GET", f"{path}?type=slackApi", 200, **owner)
        client.ask("DELETE", f"{path}/{made}", 204, **owner)


def refused(client: Client) -> None:
    """Ask without credentials and with bad ones, and for what is not there."""
    unknown = f"m9m_sk_{secrets.token_hex(19)}"
    client.ask("GET", "/items", 401)
    client.ask("GET", "/items", 401, 429, X_API_Key=unknown)
    client.ask("GET", "/items", 401, 429, **bearer(f"e30.e30.{secrets.token_urlsafe(32)}"))
    client.ask("GET", "/items", 401, 429, Authorization="Basic Og==")
    client.ask("GET", f"/{secrets.token_hex(4)}", 404)
    client.ask("GET", "/items", 401, Accept="application/problem+json" + " " * 8_000)


def limited(client: Client) -> None:
    client.ask("GET", "/limited", 200, 429)


def cors(client: Client) -> None:
    """Preflights and requests of pages, of an origin that is allowed and of others."""
    for origin, status in ((ORIGIN, 204), (f"https://{secrets.token_hex(4)}.example.net", 403)):
        fields = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        client.ask("OPTIONS", "/items", status, **fields)
        client.ask("GET", "/limited", 200, 429, Origin=origin)


def floods(client: Client) -> None:
    """Connections that end, bodies that do not, chunks of one octet, no HTTP."""
    head = b"POST /upload HTTP/1.1\r\nHost: localhost\r\n"
    for octets in (
        b"",
        b"GET / HT",
        b"\x16\x03\x01" + secrets.token_bytes(200) + b"\r\n\r\n",
        head + b"Content-Length: 100000\r\n\r\n" + b"x" * 1_000,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 2_000 + b"0\r\n\r\n",
        head + b"Transfer-Encoding: gzip\r\n\r\n",
    ):
        sockets = []
        for _ in range(10):
            with suppress(OSError):
                sockets.append(socket.create_connection(("127.0.0.1", client.port), 5))
                sockets[-1].sendall(octets)
        time.sleep(0.05)
        for opened in sockets:
            opened.close()


class Tokens:
    """Shows another token each time, so that the cache of tokens is soon full."""

    def __init__(self, secret: str) -> None:
        self._issuer = Issuer(SigningKeyRing([SigningKey(secret.encode())]), expiration=86_400)

    def __call__(self, client: Client) -> None:
        for number in range(20):
            token = self._issuer.issue(f"machine{number}", ["items"])
            client.ask("GET", "/items", 200, **bearer(token))

    __name__ = "tokens"


WORK: tuple[tuple[Callable[[Client], None], float], ...] = (
    (sessions, 0.5),
    (keys, 0.5),
    (credentials, 0.5),
    (refused, 0.05),
    (limited, 0.02),
    (cors, 0.05),
    (floods, 0.5),
)
"""What clients do, and the seconds between two rounds."""
