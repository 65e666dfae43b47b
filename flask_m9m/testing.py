"""For the tests of apps that use flask-m9m: settings, a clock, and a client with an identity."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from .settings import Settings, settings_of
from .state import EXTENSION, AppState


class Clock:
    """A clock that moves only when it is told to: `M9M(app, clock=Clock())`.

    Args:
        now: seconds since the epoch at which it starts.
    """

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move by this many seconds; a negative number is a clock that steps back."""
        self._now += seconds


def make_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Return settings with a fresh secret that no file and no variable has a part in.

    Args:
        overrides: as in `config.yaml`; they win.

    Raises:
        SettingsError: an override is wrong.
    """
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
    """Return a test client that acts as this identity, with a real token in each request.

    Args:
        app: an app with an `M9M`.
        subject: who it is.
        scopes: what its token may do.
        roles: what the subject is.
        claims: further claims.
        fresh: whether it has just logged in.
    """
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
