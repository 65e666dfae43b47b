"""AppState: what one Flask app's flask-m9m consists of, under `app.extensions["m9m"]`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click
from flask import Request, current_app, has_request_context, request

from ..audit.events import Circumstances
from ..audit.trail import AuditTrail
from ..errors import SettingsError
from ..guard.exchange import CLIENT_ADDRESS, EXCHANGE, IDENTITY, ON_REQUEST, Exchange
from ..guard.pipeline import Guard
from ..processes.forking import fork_safe_lock
from ..settings.checks import check_secret_key
from ..settings.development_secret import with_secret
from ..settings.sources import Loaded
from ..wsgi.assembly import Assembly
from .routes import Protections, Routes

if TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy import Engine

    from ..auth.app_callbacks import AppCallbacks
    from ..auth.identities import Identities
    from ..auth.identity import Identity
    from ..credentials.caller import Caller
    from ..credentials.credentials import Credentials
    from ..credentials.encryption.cipher import Cipher
    from ..credentials.types import CredentialTypes
    from ..storage.database import Database

EXTENSION = "m9m"

current_request: Callable[[], Request] = request._get_current_object  # type: ignore[attr-defined]
"""Return the current request itself; an attribute of the proxy costs a microsecond each time."""


class AppState:
    """One app's settings, and the guard and routes that are made of them at first use.

    Args:
        app: the app.
        loaded: its settings, and where they came from.
        protections: the marks that `M9M.protect` put on its routes.
        callbacks: the app's own verifier, loaders and authentication schemes.
        credential_types: returns the types of stored credentials that the app knows.
        clock: seconds since the epoch; also drives rate limits where it is not the system's.
        engine: the app's own database, in place of the one in the settings.
    """

    def __init__(
        self,
        app: Flask,
        loaded: Loaded,
        protections: Protections,
        callbacks: AppCallbacks,
        credential_types: Callable[[], CredentialTypes],
        *,
        clock: Callable[[], float] | None = None,
        engine: Engine | Callable[[], Engine] | None = None,
    ) -> None:
        self.app = app
        self.loaded = loaded
        self.protections = protections
        self.callbacks = callbacks
        self._credential_types = credential_types
        self._clock = clock
        self._engine = engine
        self._lock = fork_safe_lock()
        self._guard: Guard | None = None
        self._assembly: Assembly
        self._routes: Routes

    @property
    def shares_database(self) -> bool:
        """Whether our tables lie in a database of the app's own."""
        return self._engine is not None

    @property
    def guard(self) -> Guard:
        """The guard, made at first use, when the app is complete."""
        return self._guard or self._assemble()

    @property
    def assembly(self) -> Assembly:
        """The parts that the guard works with."""
        if self._guard is None:
            self._assemble()
        return self._assembly

    @property
    def identities(self) -> Identities:
        """What issues credentials, and knows whose they are."""
        return self.assembly.identities

    @property
    def database(self) -> Database:
        """Where state is kept; opened when it is first needed."""
        return self.assembly.database

    @property
    def credentials(self) -> Credentials:
        """What keeps credentials, made when it is first needed; in a request, its caller's."""
        kept = self.assembly.credentials(self._who_calls, self._credential_types())
        if not has_request_context():
            return kept
        # Whoever has it may use it in another thread, or later, where there is no request.
        return kept.asked_by(partial(self._sender_of, self.exchange(current_request())))

    @property
    def trail(self) -> AuditTrail:
        """What everything that happens is told to."""
        return self.assembly.trail

    @property
    def cipher(self) -> Cipher:
        """What encrypts under the settings' keys."""
        return self.assembly.cipher()

    @property
    def routes(self) -> Routes:
        """What holds for each route."""
        if self._guard is None:
            self._assemble()
        return self._routes

    def exchange(self, request: Request) -> Exchange:
        """Return the exchange of a request, beginning it where nothing has yet.

        It is kept with the request, which is one app's alone; an environ may be another app's as
        well, or be used again. There it lies only on its way from `GuardedApp` to here.
        """
        exchange: Exchange | None = getattr(request, ON_REQUEST, None)
        if exchange is None:
            environ = request.environ
            guard = self._guard or self._assemble()
            exchange = environ.pop(EXCHANGE, None)
            if exchange is None or exchange.owner is not guard:
                exchange = guard.begin(environ)
            setattr(request, ON_REQUEST, exchange)
            environ[CLIENT_ADDRESS] = exchange.client.address
            environ[IDENTITY] = None
        return exchange

    def _assemble(self) -> Guard:
        with self._lock:
            if self._guard is None:
                problems = check_secret_key(self.loaded.settings, self.app.secret_key)
                if problems:
                    raise SettingsError(problems)
                self._assembly = assembly = Assembly(
                    with_secret(
                        self.loaded.settings, self.app.instance_path, wanted=self.app.debug
                    ),
                    self.callbacks,
                    (self.app.import_name, self.app.instance_path),
                    clock=self._clock,
                    engine=self._own(),
                    private=self.app.testing,
                    response_class=self.app.response_class,
                    sender=self.app,
                    circumstances=_circumstances,
                )
                self._routes = Routes(self.app, assembly.guard.policies, self.protections)
                self._guard = assembly.guard
            return self._guard

    def _who_calls(self) -> Caller:
        """Return who sends the current request, or nobody; without one, the app itself."""
        from ..credentials.caller import SYSTEM

        if not has_request_context():
            return SYSTEM
        return self._sender_of(self.exchange(current_request()))

    def _sender_of(self, exchange: Exchange) -> Identity | None:
        """Return who sends a request; whoever another app of this process knows is nobody here."""
        return exchange.identity if exchange.owner is self._guard else None

    def _own(self) -> Engine | Callable[[], Engine] | None:
        """Return the app's own engine; a function gets the app's context, whatever the thread."""
        given = self._engine
        if not callable(given):
            return given

        def engine() -> Engine:
            with self.app.app_context():
                return given()

        return engine


def current_state(asking: str) -> AppState:
    """Return the current app's state.

    Raises:
        RuntimeError: there is no current app, or it has no `M9M`; says so of `asking`.
    """
    state: AppState | None = current_app.extensions.get(EXTENSION)
    if state is None:
        raise RuntimeError(
            f"{asking} needs flask-m9m, and the app {current_app.name!r} has none: "
            "call M9M(app), or m9m.init_app(app) in its factory"
        )
    return state


def current_exchange(asking: str) -> Exchange:
    """Return the current request's exchange.

    Raises:
        RuntimeError: there is no current request, or its app has no `M9M`.
    """
    return current_state(asking).exchange(current_request())


def _circumstances() -> Circumstances:
    """Return in which request or by which command something happens."""
    if has_request_context():
        exchange: Exchange | None = getattr(current_request(), ON_REQUEST, None)
        return Circumstances() if exchange is None else exchange.circumstances()
    command = click.get_current_context(silent=True)
    if command is None:
        return Circumstances()
    return Circumstances(scheme="command line", route=command.command_path)
