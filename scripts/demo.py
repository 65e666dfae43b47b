"""Drive examples/workflows_api over HTTP and show each request and what came back."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flask_m9m.tokens import Issuer, KeyRing, SigningKey

EXAMPLE = Path(__file__).parents[1] / "examples" / "workflows_api" / "app.py"
SHOWN = (
    "WWW-Authenticate",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "Cache-Control",
    "Vary",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Credentials",
    "Access-Control-Allow-Methods",
    "Access-Control-Allow-Headers",
    "Access-Control-Max-Age",
)
SECURITY = (
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
    "Referrer-Policy",
    "Permissions-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
)
APP, EVIL = "https://app.example.com", "https://app.example.com.evil.net"

LONG = re.compile(r"([\w.-]{16})[\w.-]{24,}")
COLOURS = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def paint(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if COLOURS else text


def shortened(text: str) -> str:
    """Leave out most of whatever may be a token or a key."""
    return LONG.sub(r"\1…", text)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def code(self) -> str | None:
        """The machine's word for an error."""
        try:
            body = json.loads(self.body)
        except ValueError:
            return None
        return body.get("code") if isinstance(body, dict) else None


class Demo:
    """Talks to the example and counts the answers that are not what they should be."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.wrong = 0
        self.steps = 0

    def chapter(self, title: str) -> None:
        print(f"\n{paint(title, '1;36')}")

    def step(
        self,
        why: str,
        method: str,
        path: str,
        *,
        expect: int,
        code: str | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        show: tuple[str, ...] = SHOWN,
        also: Callable[[Answer], bool] = lambda answer: True,
    ) -> Answer:
        """Send a request, print it and its answer, and check the answer."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        content = None
        if body is not None:
            content, sent["Content-Type"] = json.dumps(body), "application/json"
        answer = self._send(method, path, sent, content)
        good = answer.status == expect and answer.code == code and also(answer)
        self.steps += 1
        self.wrong += not good

        print(f"\n  {paint(why, '1')}")
        print(f"  {paint('>', '34')} {method} {path}")
        for name, value in sent.items():
            if name != "Content-Type":
                print(f"  {paint('>', '34')} {name}: {shortened(value)}")
        status = f"{answer.status} {http.client.responses[answer.status]}"
        print(f"  {paint('<', '34')} {paint(status, '32' if answer.status < 400 else '33')}")
        for name in show:
            if name in answer.headers:
                print(f"  {paint('<', '34')} {name}: {answer.headers[name]}")
        if answer.body.strip():
            print(f"  {paint('<', '34')} {shortened(answer.body.strip())[:300]}")
        if not good:
            print(f"  {paint(f'WRONG: expected {expect} {code or str()}', '1;31')}")
        return answer

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], content: str | None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request(method, path, content, dict(headers))
            response = connection.getresponse()
            fields: dict[str, str] = {}
            for name, value in response.getheaders():
                fields[name] = f"{fields[name]}, {value}" if name in fields else value
            return Answer(response.status, fields, response.read().decode())
        finally:
            connection.close()


def preflight(origin: str, method: str, headers: str = "authorization") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


def tell(demo: Demo, secret: str) -> None:
    ring = KeyRing([SigningKey(secret.encode())])
    issuer = Issuer(ring, expiration=3600)
    long_ago = Issuer(ring, expiration=3600, clock=lambda: time.time() - 7200)
    stranger = Issuer(KeyRing([SigningKey(secrets.token_bytes(32))]), expiration=3600)
    scopes = ("workflow:read", "workflow:run")
    ann = issuer.issue("ann", scopes=scopes)

    demo.chapter("Who are you?")
    demo.step("Anyone may ask for the health", "GET", "/health", expect=200)
    demo.step("No credentials", "GET", "/workflows", expect=401, code="AUTH_REQUIRED")
    demo.step("A good token", "GET", "/workflows", token=ann, expect=200)
    demo.step(
        "A token that has expired",
        "GET",
        "/workflows",
        token=long_ago.issue("ann", scopes=scopes),
        expect=401,
        code="INVALID_TOKEN",
    )
    demo.step(
        "A token that somebody else signed: the same answer",
        "GET",
        "/workflows",
        token=stranger.issue("ann", scopes=scopes),
        expect=401,
        code="INVALID_TOKEN",
    )

    demo.chapter("What may you do?")
    demo.step(
        "A scope is missing",
        "POST",
        "/workflows",
        token=ann,
        body={"name": "Mine"},
        expect=403,
        code="ACCESS_DENIED",
    )
    writer = issuer.issue("bob", scopes=("workflow:write",))
    demo.step(
        "The scope is there",
        "POST",
        "/workflows",
        token=writer,
        body={"name": "Mine"},
        expect=201,
    )
    demo.step(
        "A role is missing", "DELETE", "/workflows/1", token=ann, expect=403, code="ACCESS_DENIED"
    )

    demo.chapter("Where do you come from?")
    demo.step(
        "The app's own page asks first",
        "OPTIONS",
        "/workflows",
        headers=preflight(APP, "POST"),
        expect=204,
        also=lambda answer: answer.headers.get("Access-Control-Allow-Origin") == APP,
    )
    demo.step(
        "… and then reads the answer",
        "GET",
        "/workflows",
        token=ann,
        headers={"Origin": APP},
        expect=200,
        also=lambda answer: answer.headers.get("Access-Control-Allow-Origin") == APP,
    )
    demo.step(
        "A page that only looks like it",
        "OPTIONS",
        "/workflows",
        headers=preflight(EVIL, "POST"),
        expect=403,
        code="CORS_REFUSED",
    )
    demo.step(
        "… gets no permission to read either",
        "GET",
        "/health",
        headers={"Origin": EVIL},
        expect=200,
        also=lambda answer: "Access-Control-Allow-Origin" not in answer.headers,
    )

    demo.chapter("How often?")
    for number in (1, 2, 3):
        demo.step(
            f"Run {number} of a burst of 3", "POST", "/workflows/1/run", token=ann, expect=202
        )
    demo.step(
        "One too many",
        "POST",
        "/workflows/1/run",
        token=ann,
        expect=429,
        code="RATE_LIMITED",
        also=lambda answer: 1 <= int(answer.headers["Retry-After"]) <= 10,
    )
    runner = issuer.issue("bob", scopes=("workflow:run",))
    demo.step(
        "Somebody else has a budget of his own",
        "POST",
        "/workflows/1/run",
        token=runner,
        expect=202,
    )

    demo.chapter("What every answer carries")
    demo.step(
        "Even one that no view made",
        "GET",
        "/no/such/path",
        expect=404,
        show=SECURITY,
        also=lambda answer: all(name in answer.headers for name in SECURITY),
    )


def log_in(demo: Demo, password: str) -> None:
    """The whole way of a user: log in, make an API key, use it, revoke it, see it refused."""
    api = "/api/v1"
    demo.chapter("From a password to an API key, and back")
    wrong = {"username": "ann", "password": "a guess"}
    demo.step(
        "A wrong password",
        "POST",
        f"{api}/auth/login",
        body=wrong,
        expect=401,
        code="INVALID_CREDENTIALS",
    )
    right = {"username": "ann", "password": password}
    answer = demo.step("The right one", "POST", f"{api}/auth/login", body=right, expect=200)
    session = json.loads(answer.body)
    token = session["token"]
    demo.step("Its token opens the API", "GET", "/workflows", token=token, expect=200)
    more = {"name": "nightly", "scopes": ["workflow:write"]}
    demo.step(
        "Nobody gives a key what they do not have",
        "POST",
        f"{api}/api-keys",
        token=token,
        body=more,
        expect=403,
        code="ACCESS_DENIED",
    )
    wanted = {"name": "nightly", "scopes": ["workflow:read"]}
    answer = demo.step(
        "A key for a script", "POST", f"{api}/api-keys", token=token, body=wanted, expect=201
    )
    made = json.loads(answer.body)
    key = {"X-API-Key": made["key"]}
    demo.step("The script reads", "GET", "/workflows", headers=key, expect=200)
    demo.step(
        "… and does nothing else",
        "POST",
        "/workflows",
        headers=key,
        expect=403,
        code="ACCESS_DENIED",
    )
    demo.step(
        "The key's owner revokes it",
        "DELETE",
        f"{api}/api-keys/{made['id']}",
        token=token,
        expect=204,
    )
    demo.step(
        "The script is refused",
        "GET",
        "/workflows",
        headers=key,
        expect=401,
        code="INVALID_API_KEY",
    )
    spent = {"refreshToken": session["refreshToken"]}
    answer = demo.step(
        "A refresh token gives a new pair", "POST", f"{api}/auth/refresh", body=spent, expect=200
    )
    token = json.loads(answer.body)["token"]
    demo.step("… once", "POST", f"{api}/auth/refresh", body=spent, expect=409, code="CONFLICT")
    demo.step("Logging out", "POST", f"{api}/auth/logout", token=token, expect=204)
    demo.step(
        "… ends the session at once",
        "GET",
        "/workflows",
        token=token,
        expect=401,
        code="INVALID_TOKEN",
    )


def make_user(environment: Mapping[str, str], password: str) -> None:
    """Make ann on the command line; the password goes in by standard input."""
    command = [sys.executable, "-m", "flask", "--app", str(EXAMPLE), "m9m", "user", "create", "ann"]
    scopes = ["--scope", "workflow:read workflow:run"]
    subprocess.run(
        [*command, *scopes], env=dict(environment), input=f"{password}\n".encode(), check=True
    )


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the example did not start")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        return show(folder)


def show(folder: str) -> int:
    secret, password = secrets.token_urlsafe(48), secrets.token_urlsafe(12)
    environment = {
        **os.environ,
        "M9M_JWT_SECRET": secret,
        "M9M_DATABASE_URL": f"sqlite:///{folder}/m9m.db",
    }
    make_user(environment, password)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flask", "--app", str(EXAMPLE), "run", "--port", str(port)]
    server = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, server)
        demo = Demo(port)
        tell(demo, secret)
        log_in(demo, password)
    finally:
        server.terminate()
        server.wait(10)
    if demo.wrong:
        print(paint(f"\n{demo.wrong} of {demo.steps} answers were wrong", "1;31"))
        return 1
    print(paint(f"\nAll {demo.steps} answers are what they should be", "1;32"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
