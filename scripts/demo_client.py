"""What the demo's chapters drive: each step is a request, printed with its answer and checked."""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    """Talks to the example and counts the answers that are not what they should be.

    Attributes:
        port: where the example answers.
    """

    def __init__(self) -> None:
        self.port = 0
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

    def fact(self, why: str, found: str, *, right: bool) -> None:
        """Print what is to be seen elsewhere than in an answer, and count it as a step."""
        self.steps += 1
        self.wrong += not right
        print(f"\n  {paint(why, '1')}")
        print(f"  {paint('=', '34')} {paint(found, '32' if right else '1;31')}")

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], content: str | None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, content, dict(headers))
            response = connection.getresponse()
            fields: dict[str, str] = {}
            for name, value in response.getheaders():
                fields[name] = f"{fields[name]}, {value}" if name in fields else value
            return Answer(response.status, fields, response.read().decode())
        finally:
            connection.close()
