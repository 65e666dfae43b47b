"""OpenAPI fragment of an app: the security of its routes, as `m9m.openapi()` returns it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask
from werkzeug.exceptions import HTTPException, default_exceptions

from .app_state import AppState


def fragment_of(
    state: AppState, schemes: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Describe the security of an app's routes.

    Args:
        state: the app's state.
        schemes: Security Scheme Objects that replace ours, by the name of the scheme.

    Raises:
        ValueError: a scheme in `schemes` is not switched on.
        SettingsError: the app's marks contradict each other or the settings.
    """
    from ..openapi.components import ANSWERS
    from ..openapi.fragment import describe

    routes = (
        (rule.rule, method, policy)
        for rule, method, policy in state.routes.all()
        if not (rule.build_only or rule.websocket)
    )
    own = [status for status in ANSWERS if has_error_handler(state.app, int(status))]
    return describe(routes, state.guard, schemes, own=own)


def has_error_handler(app: Flask, status: int) -> bool:
    """Tell whether Flask would find an error handler of the app's own for a status."""
    handlers = app.error_handler_spec.get(None, {})
    handled = {**handlers.get(status, {}), **handlers.get(None, {})}
    return not handled.keys().isdisjoint((HTTPException, default_exceptions[status]))
