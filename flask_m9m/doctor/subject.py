"""Subject: the app that is examined, and checks of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..policy import RoutePolicy
from ..settings import Settings
from ..storage.engine import sqlite_path, url_of
from .backends import DatabaseAnswer, Unreachable, ask_database, ask_redis
from .findings import Finding, Kind

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.routing import Rule

    from ..state import AppState


@dataclass(frozen=True)
class Route:
    """One route, by one method, and what holds there."""

    rule: Rule
    method: str
    policy: RoutePolicy

    def __str__(self) -> str:
        return f"{self.method} {self.rule.rule} ({self.rule.endpoint})"


@dataclass(frozen=True)
class Subject:
    """An app under examination.

    Attributes:
        state: the app's.
        clock: seconds since the epoch.
        folder: the working directory, where the app's files are looked for.
    """

    state: AppState
    clock: Callable[[], float] = time.time
    folder: Path = field(default_factory=Path.cwd)

    @cached_property
    def now(self) -> float:
        """When it is examined, in seconds since the epoch."""
        return self.clock()

    @property
    def app(self) -> Flask:
        """The app itself."""
        return self.state.app

    @property
    def settings(self) -> Settings:
        """Its settings, as they were given."""
        return self.state.loaded.settings

    @cached_property
    def routes(self) -> tuple[Route, ...]:
        """Its routes.

        Raises:
            SettingsError: their marks contradict each other or the settings.
        """
        return tuple(Route(*one) for one in self.state.routes.all())

    @cached_property
    def routes_by_endpoint(self) -> dict[str, list[Route]]:
        """Its routes under the names of their endpoints, in the order of the names."""
        found: dict[str, list[Route]] = {}
        for route in sorted(self.routes, key=lambda one: (one.rule.endpoint, one.rule.rule)):
            found.setdefault(route.rule.endpoint, []).append(route)
        return found

    @cached_property
    def database(self) -> DatabaseAnswer | Unreachable:
        """What its database says, asked once."""
        return ask_database(self.state.database, self.clock)

    @cached_property
    def redis_ahead(self) -> float | Unreachable | None:
        """By how many seconds Redis's clock is ahead, asked once; `None` where none is used."""
        limiting = self.settings.performance.rate_limit
        if limiting.storage != "redis" or limiting.redis_url is None:
            return None
        return ask_redis(limiting.redis_url.get_secret_value(), self.clock)

    @property
    def sqlite_file(self) -> Path | None:
        """The file of our own database, where SQLite keeps it."""
        if self.state.shares_database:
            return None
        return sqlite_path(url_of(self.settings.database, self.app.instance_path))

    def at(self, path: str) -> str:
        """Name a setting, and where its value comes from."""
        source = self.source(path)
        return path if source == "default" else f"{path} ({source})"

    def source(self, path: str) -> str:
        """Return where a setting's value comes from."""
        return self.state.loaded.sources.get(path, "default")


Examine = Callable[[Subject], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """A look at one thing.

    Attributes:
        name: what it is called when it fails.
        kinds: all that it can find.
        examine: looks.
    """

    name: str
    kinds: tuple[Kind, ...]
    examine: Examine


def finds(*kinds: Kind) -> Callable[[Callable[[Subject], Iterator[Finding]]], Check]:
    """Make a check of a function, and say all that it can find."""

    def declare(examine: Callable[[Subject], Iterator[Finding]]) -> Check:
        return Check(examine.__name__.replace("_", "-"), kinds, examine)

    return declare
