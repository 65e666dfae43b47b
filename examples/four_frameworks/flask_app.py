"""The API in Flask, whose routes are marked: gunicorn flask_app:application."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flask import Flask, Response, request

from flask_m9m import M9M, current_identity, rate_limit, require_auth
from flask_m9m import public as opened

application = Flask(__name__)
m9m = M9M(application, settings=Path(__file__).with_name("config.yaml"))


@application.get("/public")
@opened
def public() -> dict[str, Any]:
    return {"open": True}


@application.get("/me")
@require_auth
def me() -> dict[str, Any]:
    return {"subject": current_identity.subject}


@application.get("/admin")
@require_auth(scopes="admin")
def admin() -> dict[str, Any]:
    return {"admin": current_identity.subject}


@application.post("/items")
@require_auth
@rate_limit("3/minute", key="identity", name="items")
def create_item() -> tuple[dict[str, Any], int]:
    return {"item": request.get_json(), "owner": current_identity.subject}, 201


@application.get("/stream")
@opened
def stream() -> Response:
    def lines() -> Iterator[str]:
        for number in range(3):
            yield f"{number}\n"

    return Response(lines(), content_type="text/plain")


@application.get("/fail")
@opened
def fail() -> None:
    raise RuntimeError("a defect")
