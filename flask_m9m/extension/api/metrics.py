"""Metrics route: the counters in Prometheus' text format, if `metrics.enabled` is set."""

from __future__ import annotations

from importlib.util import find_spec

from flask import Flask, Response
from werkzeug.exceptions import ServiceUnavailable

from ...errors import AccessDenied, AuthenticationRequired, Problem, SettingsError
from ...http.address import Networks
from ...settings.models import MetricsSettings
from ..app_state import current_exchange, current_state
from ..decorators import require_auth
from ..routes import METRICS_ENDPOINT

SCOPE = "m9m:metrics"


def register_metrics(app: Flask, settings: MetricsSettings) -> None:
    """Register the metrics route with an app.

    Callers from `metrics.allowed_networks` need no credential; others need the scope
    `m9m:metrics`.

    Raises:
        SettingsError: prometheus-client is not installed.
    """
    if find_spec("prometheus_client") is None:
        found = "true, but prometheus-client is not installed"
        remedy = "run pip install 'flask-m9m[metrics]', or set it to false"
        raise SettingsError([Problem("metrics.enabled", found, remedy)])
    networks = Networks(settings.allowed_networks)

    def show() -> Response:
        return _show()

    def show_to_networks() -> Response:
        exchange = current_exchange(settings.path)
        if not networks.admit(exchange.client):
            if exchange.identity is None:
                raise AuthenticationRequired
            if not exchange.identity.has_scope(SCOPE):
                error = AccessDenied()
                error.scopes = (SCOPE,)
                raise error
        return _show()

    if settings.allowed_networks:
        view = require_auth(optional=True)(show_to_networks)
    else:
        view = require_auth(scopes=SCOPE)(show)
    app.add_url_rule(settings.path, METRICS_ENDPOINT, view, methods=["GET"])


def _show() -> Response:
    from ...guard.metrics.exposition import CONTENT_TYPE, expose

    metrics = current_state("metrics").assembly.metrics
    assert metrics is not None  # noqa: S101  # the route exists only with metrics
    try:
        body = expose(metrics.totals())
    except OSError:
        raise ServiceUnavailable("the metrics cannot be read now") from None
    return Response(body, content_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})
