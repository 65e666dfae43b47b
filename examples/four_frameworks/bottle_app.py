"""The API in Bottle: gunicorn bottle_app:application."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottle import Bottle, request, response
from policies import POLICIES

from flask_m9m import M9MMiddleware

app = Bottle()


@app.get("/public")
def public() -> dict[str, Any]:
    return {"open": True}


@app.get("/me")
def me() -> dict[str, Any]:
    return {"subject": request.environ["m9m.identity"].subject}


@app.get("/admin")
def admin() -> dict[str, Any]:
    return {"admin": request.environ["m9m.identity"].subject}


@app.post("/items")
def create_item() -> dict[str, Any]:
    response.status = 201
    return {"item": request.json, "owner": request.environ["m9m.identity"].subject}


@app.get("/stream")
def stream() -> Iterator[str]:
    response.content_type = "text/plain"
    for number in range(3):
        yield f"{number}\n"


@app.get("/fail")
def fail() -> None:
    raise RuntimeError("a defect")


application = M9MMiddleware(
    app, settings=Path(__file__).with_name("config.yaml"), policies=POLICIES, name="bottle"
)
