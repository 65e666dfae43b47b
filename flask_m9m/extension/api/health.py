"""Health routes: `/health`, `/healthz` and `/ready`, for orchestrators and load balancers."""

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
    """Report that the process is alive."""
    return _uncached(jsonify({"status": "ok"}))


@blueprint.get("/ready")
@public
@unlimited
def ready() -> tuple[Response, int]:
    """Report which parts that requests depend on are available, without the cause of a failure."""
    parts = {"database": current_state("/ready").identities.is_ready()}
    all_available = all(parts.values())
    words = {part: "ok" if available else "unavailable" for part, available in parts.items()}
    body = {"status": "ready" if all_available else "unavailable", "parts": words}
    return _uncached(jsonify(body)), 200 if all_available else 503


def _uncached(answer: Response) -> Response:
    answer.headers["Cache-Control"] = "no-store"
    return answer
