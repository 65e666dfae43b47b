"""Test support for apps that use flask-m9m: settings, a clock, and authenticated clients."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from .extension.app_state import EXTENSION, AppState
from .settings.arguments import check_type, checked_number
from .settings.models import Settings
from .settings.sources import settings_of


class Clock:
    """A clock that moves only by `advance`: `M9M(app, clock=Clock())`.

    Args:
        now: the start, in seconds since the epoch.
    """

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self._now = checked_number("now", now)

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock by this many seconds; a negative number sets it back."""
        self._now += checked_number("seconds", seconds)


def make_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Make settings with a random secret, without reading files or environment variables.

    Args:
        overrides: settings, nested as in `config.yaml`; they replace the defaults.

    Returns:
        The settings, to be given to `M9M(app, settings=…)`.

    Raises:
        SettingsError: an override is not valid.
    """
    check_type(Mapping | None, overrides=overrides)
    fresh: dict[str, Any] = {"security": {"jwt": {"secret": secrets.token_urlsafe(48)}}}
    return settings_of(_merge(fresh, overrides or {}))


def client_as(
    app: Flask,
    subject: str,
    scopes: Collection[str] = (),
    roles: Collection[str] = (),
    claims: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> FlaskClient:
    """Make a test client that is authenticated, with a real access token in each request.

    Args:
        app: an app with an `M9M`.
        subject: the token's subject.
        scopes: the token's scopes.
        roles: the token's roles.
        claims: further claims of the token.
        fresh: whether the token is fresh, as right after a login.
    """
    check_type(Flask, app=app)
    if EXTENSION not in app.extensions:
        raise RuntimeError(f"the app {app.name!r} has no M9M: call M9M(app) first")
    state: AppState = app.extensions[EXTENSION]
    token = state.identities.tokens.issue(subject, scopes, roles, claims, fresh=fresh)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return client


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged
