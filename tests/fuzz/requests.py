"""Requests to an app without a server: what the harnesses of request fields share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any, NamedTuple

from flask import Flask

from flask_m9m import M9M
from flask_m9m.testing import Clock, make_settings

from .harness import Harness, Wrong, no_chance

SECRET = "a secret of the fuzz harnesses, and of nobody else"
BEGIN = 1_750_000_000.0
"""What the apps' clock says, always: seconds since the epoch."""

TOO_LONG = (414, 431)
"""Fields of up to 16 KiB may be refused for their length alone."""

_VISIBLE = re.compile(r"[\t -~\x80-\xff]*")


class Sent(NamedTuple):
    """A request.

    Attributes:
        fields: the variables of the environ that differ from a plain request's.
        path: the path, decoded.
    """

    fields: Mapping[str, str]
    path: str = "/x"


class Answer(NamedTuple):
    """An answer: its status, its fields with names in lower case, its body."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field == name]

    def one(self, name: str) -> str | None:
        found = self.all(name)
        if len(found) > 1:
            raise Wrong(f"{name} is sent {len(found)} times")
        return found[0] if found else None


class RequestHarness(Harness):
    """A harness that sends requests to an app.

    The environ is made anew for each request, in every way that a server would.
    """

    def secure(self, settings: Mapping[str, Any]) -> tuple[Flask, M9M]:
        """Make an app, whose exceptions propagate."""
        app = Flask("app")
        app.testing = True
        self.clock = Clock(BEGIN)
        m9m = M9M(app, settings=make_settings(settings), clock=self.clock)
        return app, m9m

    def settings(self, **security: Any) -> dict[str, Any]:
        """Return settings with a database of the harness's own."""
        url = f"sqlite:///{self.folder / 'm9m.db'}"
        jwt = {"secret": SECRET, **security.pop("jwt", {})}
        return {"database": {"url": url}, "security": {"jwt": jwt, **security}}

    def send(self, app: Any, sent: Sent) -> Answer:
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": sent.path,
            "QUERY_STRING": "",
            "SERVER_NAME": "api.example.com",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "192.0.2.1",
            "HTTP_HOST": "api.example.com",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "wsgi.errors": BytesIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            **sent.fields,
        }
        heads: list[tuple[str, list[tuple[str, str]]]] = []
        body = app(environ, lambda status, fields, _=None: heads.append((status, fields)))
        octets = b"".join(body)
        getattr(body, "close", lambda: None)()
        status, fields = heads[-1]
        answer = Answer(int(status[:3]), [(name.lower(), value) for name, value in fields], octets)
        return answer

    def expect(self, answer: Answer, *statuses: int) -> None:
        """Check what holds of every answer, and that its status is one of these."""
        if answer.status not in (*statuses, *TOO_LONG):
            raise Wrong(f"answered {answer.status}, which is none of {statuses}: {answer.body!r}")
        for name, value in answer.fields:
            if not _VISIBLE.fullmatch(value):
                raise Wrong(f"{name} has a character that no field may have: {value!r}")


__all__ = ["BEGIN", "SECRET", "Answer", "RequestHarness", "Sent", "no_chance"]
