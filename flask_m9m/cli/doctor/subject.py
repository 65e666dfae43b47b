"""Subject: the app under examination, its routes and backends; and how a check is declared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ...guard.policy import RoutePolicy
from ...settings.models import Settings
from ...storage.engine import sqlite_path, url_of
from .backends import DatabaseAnswer, Unreachable, ask_database, ask_redis
from .findings import Finding, Kind

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.routing import Rule

    from ...extension.app_state import AppState


@dataclass(frozen=True)
class Route:
    """A route with one of its methods, and the policy that applies."""

    rule: Rule
    method: str
    policy: RoutePolicy

    def __str__(self) -> str:
        return f"{self.method} {self.rule.rule} ({self.rule.endpoint})"


@dataclass(frozen=True)
class Subject:
    """An app under examination.

    Attributes:
        state: the app's state.
        clock: returns the time in seconds since the epoch.
        folder: the working directory, which the app's files are relative to.
    """

    state: AppState
    clock: Callable[[], float] = time.time
    folder: Path = field(default_factory=Path.cwd)

    @cached_property
    def now(self) -> float:
        """The time of the examination, in seconds since the epoch."""
        return self.clock()

    @property
    def app(self) -> Flask:
        """The Flask app."""
        return self.state.app

    @property
    def settings(self) -> Settings:
        """The app's settings, as they were given."""
        return self.state.loaded.settings

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """The app's routes, each with every method.

        Raises:
            SettingsError: the marks of a route contradict each other or the settings.
        """
        return tuple(Route(*route) for route in self.state.routes.all())

    @cached_property
    def routes_by_endpoint(self) -> dict[str, list[Route]]:
        """The app's routes by endpoint, in alphabetical order."""
        found: dict[str, list[Route]] = {}
        for route in sorted(self.routes, key=lambda route: (route.rule.endpoint, route.rule.rule)):
            found.setdefault(route.rule.endpoint, []).append(route)
        return found

    @cached_property
    def database(self) -> DatabaseAnswer | Unreachable:
        """The state of the app's database, queried once."""
        return ask_database(self.state.database, self.clock)

    @cached_property
    def redis_ahead(self) -> float | Unreachable | None:
        """The seconds by which Redis's clock is ahead, asked once; `None` without Redis."""
        limiting = self.settings.performance.rate_limit
        if limiting.storage != "redis" or limiting.redis_url is None:
            return None
        return ask_redis(limiting.redis_url.get_secret_value(), self.clock)

    @property
    def sqlite_file(self) -> Path | None:
        """The file of our own SQLite database; `None` for any other database."""
        if self.state.shares_database:
            return None
        return sqlite_path(url_of(self.settings.database, self.app.instance_path))

    def at(self, path: str) -> str:
        """Format a setting's path with the source of its value."""
        source = self.source(path)
        return path if source == "default" else f"{path} ({source})"

    def source(self, path: str) -> str:
        """Find the source of a setting's value: a file, a variable or `default`."""
        return self.state.loaded.sources.get(path, "default")


Examine = Callable[[Subject], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """A check of an app.

    Attributes:
        name: the check's name, for reports of its failure.
        kinds: every kind of finding that it can report.
        examine: yields the findings about an app.
    """

    name: str
    kinds: tuple[Kind, ...]
    examine: Examine


def finds(*kinds: Kind) -> Callable[[Callable[[Subject], Iterator[Finding]]], Check]:
    """Declare a function as a check.

    Args:
        kinds: every kind of finding that it can report.
    """

    def declare(examine: Callable[[Subject], Iterator[Finding]]) -> Check:
        return Check(examine.__name__.replace("_", "-"), kinds, examine)

    return declare
