"""An app for several workers, under settings that come from environment variables alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from flask import Flask, Response

from flask_m9m import M9M, require_auth
from flask_m9m.auth.jwt.jws import inspect

app = Flask(__name__, instance_path=os.path.abspath("instance"))
m9m = M9M(app)
executed: list[str] = []


@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
    executed.append(statement)


def make_key() -> tuple[str, dict[str, str]]:
    key, text = m9m.api_keys.create("ci", "ann")
    return key.id, {"X-API-Key": text}


def make_token() -> tuple[str, dict[str, str]]:
    token = m9m.tokens.issue("ann")
    return inspect(token)[1]["jti"], {"Authorization": f"Bearer {token}"}


KINDS: dict[str, tuple[Callable[[], tuple[str, dict[str, str]]], Callable[[str], None]]] = {
    "api_key": (make_key, lambda name: m9m.api_keys.revoke(name)),
    "token": (make_token, lambda name: m9m.tokens.revoke(name)),
}
"""How a credential of each kind is made, as its name and the headers to send, and revoked."""


@app.after_request
def name_worker(response: Response) -> Response:
    response.headers["X-Worker"] = str(os.getpid())
    return response


@app.get("/protected")
@require_auth
def protected() -> dict[str, int]:
    return {"worker": os.getpid()}


@app.post("/credentials/<kind>")
def create(kind: str) -> dict[str, Any]:
    name, headers = KINDS[kind][0]()
    return {"name": name, "headers": headers}


@app.delete("/credentials/<kind>/<name>")
def revoke(kind: str, name: str) -> dict[str, float]:
    KINDS[kind][1](name)
    return {"committed_before": time.monotonic()}  # of one clock for all processes


@app.get("/statements")
def statements() -> list[str]:
    return executed
