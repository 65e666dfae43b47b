"""`/health`, `/healthz` and `/ready`: for whatever starts, watches and balances processes."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from ..app_state import current_state
from ..decorators import public, unlimited

blueprint = Blueprint("m9m_health", __name__)


@blueprint.get("/health")
@blueprint.get("/healthz")
@public
@unlimited
def health() -> Response:
    """Say that the process answers."""
    return _not_kept(jsonify({"status": "ok"}))


@blueprint.get("/ready")
@public
@unlimited
def ready() -> tuple[Response, int]:
    """Say whether what answers depend on is there, and which part is not; never why."""
    parts = {"database": current_state("/ready").identities.is_ready()}
    all_there = all(parts.values())
    words = {part: "ok" if there else "unavailable" for part, there in parts.items()}
    body = {"status": "ready" if all_there else "unavailable", "parts": words}
    return _not_kept(jsonify(body)), 200 if all_there else 503


def _not_kept(answer: Response) -> Response:
    answer.headers["Cache-Control"] = "no-store"
    return answer
