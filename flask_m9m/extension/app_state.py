"""AppState: all that flask-m9m keeps for one Flask app, as `app.extensions["m9m"]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from flask import Request, current_app, has_request_context, request
from flask.globals import app_ctx, request_ctx

from ..audit.events import Circumstances
from ..audit.trail import AuditTrail
from ..errors import SettingsError
from ..guard.exchange import CLIENT_ADDRESS, EXCHANGE, IDENTITY, ON_REQUEST, Exchange
from ..guard.pipeline import Guard
from ..processes.forking import fork_safe_lock
from ..settings.checks import check_secret_key
from ..settings.development_secret import with_secret
from ..settings.loaded import Loaded
from ..wsgi.assembly import Assembly
from .protections import Protections
from .routes import Routes

if TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy import Engine, MetaData

    from ..auth.app_callbacks import AppCallbacks
    from ..auth.identities import Identities
    from ..auth.identity import Identity
    from ..credentials.caller import Caller
    from ..credentials.credentials import Credentials
    from ..credentials.encryption.cipher import Cipher
    from ..credentials.types import CredentialTypes
    from ..storage.database import Database

EXTENSION = "m9m"

_EXCHANGE_BEFORE = "_m9m_exchange"
_NO_REQUEST = object()

current_request: Callable[[], Request] = request._get_current_object  # type: ignore[attr-defined]
"""Get the current request itself: each attribute read through the proxy costs a microsecond."""


class AppState:
    """One app's settings, and the guard and routes that are made from them at first use.

    Args:
        app: the app.
        loaded: the app's settings and their sources.
        protections: the marks that `M9M.protect` put on routes.
        callbacks: the app's own password verifier, loaders and authentication schemes.
        credential_types: returns the known types of stored credentials.
        clock: seconds since the epoch; a clock that is given drives rate limits too.
        engine: the app's own database, which replaces that of the settings.
        column_databases: the databases of encrypted columns that the app has named.
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
        column_databases: Sequence[tuple[Engine | Callable[[], Engine], MetaData]] = (),
    ) -> None:
        self.app = app
        self.loaded = loaded
        self.protections = protections
        self.callbacks = callbacks
        self._credential_types = credential_types
        self._clock = clock
        self._engine = engine
        self.column_databases = column_databases
        self._lock = fork_safe_lock()
        self._guard: Guard | None = None
        self._assembly: Assembly
        self._routes: Routes

    @property
    def shares_database(self) -> bool:
        """Whether flask-m9m's tables are in the app's own database."""
        return self._engine is not None

    @property
    def guard(self) -> Guard:
        """The guard; it is made at first use, when the app is complete."""
        return self._guard or self._assemble()

    @property
    def assembly(self) -> Assembly:
        """The guard and the parts it works with; made at first use."""
        if self._guard is None:
            self._assemble()
        return self._assembly

    @property
    def identities(self) -> Identities:
        """The app's authentication: it issues credentials and verifies them."""
        return self.assembly.identities

    @property
    def database(self) -> Database:
        """The database; it is opened at first use."""
        return self.assembly.database

    @property
    def credentials(self) -> Credentials:
        """The stored credentials; inside a request, its caller decides which are visible."""
        credentials = self.assembly.credentials(self._current_caller, self._credential_types())
        exchange = self._current_exchange()
        if exchange is _NO_REQUEST:
            return credentials
        # The object may be used in another thread, or after the request has ended.
        return credentials.with_caller(partial(self._caller_of, exchange))

    @property
    def trail(self) -> AuditTrail:
        """The audit trail."""
        return self.assembly.trail

    @property
    def cipher(self) -> Cipher:
        """The cipher, which encrypts with the keys of the settings."""
        return self.assembly.cipher()

    @property
    def routes(self) -> Routes:
        """The policies of the app's routes."""
        if self._guard is None:
            self._assemble()
        return self._routes

    def exchange(self, request: Request) -> Exchange:
        """Get the exchange of a request; begin it if the request has none yet.

        The exchange is kept on the request object, which belongs to one app. An environ may be
        shared with another app or used again, so it only carries the exchange from `GuardedApp`
        to this method.
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
                    engine=self.app_engine,
                    private=self.app.testing,
                    response_class=self.app.response_class,
                    sender=self.app,
                    circumstances=_circumstances,
                )
                self._routes = Routes(self.app, assembly.guard.policies, self.protections)
                self._guard = assembly.guard
            return self._guard

    def _current_caller(self) -> Caller:
        """Get the caller of the current request; outside a request it is the app itself."""
        from ..credentials.caller import SYSTEM

        exchange = self._current_exchange()
        return SYSTEM if exchange is _NO_REQUEST else self._caller_of(exchange)

    def _current_exchange(self) -> Any:
        """Get the current request's exchange, or what `keep_exchange` kept of it."""
        if has_request_context():
            return self.exchange(current_request())
        return _kept_exchange()

    def _caller_of(self, exchange: Exchange | None) -> Identity | None:
        """Get the caller of a request; `None` if another app of this process began the exchange."""
        if exchange is None or exchange.owner is not self._guard:
            return None
        return exchange.identity

    @property
    def app_engine(self) -> Engine | Callable[[], Engine] | None:
        """The app's own engine; a function is called in the app's context, in every thread."""
        given = self._engine
        if not callable(given):
            return given

        def engine() -> Engine:
            with self.app.app_context():
                return given()

        return engine


def current_state(needed_by: str) -> AppState:
    """Get the current app's state.

    Args:
        needed_by: the name of the function or object that needs it, for the error message.

    Raises:
        RuntimeError: there is no current app, or it has no `M9M`.
    """
    state: AppState | None = current_app.extensions.get(EXTENSION)
    if state is None:
        raise RuntimeError(
            f"{needed_by} needs an M9M, and the app {current_app.name!r} has none: "
            "call M9M(app), or m9m.init_app(app) in the app's factory"
        )
    return state


def current_exchange(needed_by: str) -> Exchange:
    """Get the current request's exchange.

    Args:
        needed_by: as for `current_state`.

    Raises:
        RuntimeError: there is no current request, or its app has no `M9M`.
    """
    return current_state(needed_by).exchange(current_request())


def keep_exchange() -> None:
    """Keep the exchange for functions that tear the app's context down after the request's.

    Until Flask 3.1 a request has two contexts; an app's context that was there before is not its.
    """
    tokens = getattr(request_ctx, "_cv_tokens", None)
    own_context = tokens[-1][1] if tokens else None
    if own_context is not None:
        setattr(own_context, _EXCHANGE_BEFORE, getattr(current_request(), ON_REQUEST, None))


def _kept_exchange() -> Any:
    """Get what `keep_exchange` kept: `None` if the request had no exchange."""
    return getattr(app_ctx, _EXCHANGE_BEFORE, _NO_REQUEST) if app_ctx else _NO_REQUEST


def _circumstances() -> Circumstances:
    """Describe the current request or command, for the audit trail."""
    in_request = has_request_context()
    exchange = getattr(current_request(), ON_REQUEST, None) if in_request else _kept_exchange()
    if exchange is not _NO_REQUEST:
        return Circumstances() if exchange is None else exchange.circumstances()
    command = click.get_current_context(silent=True)
    if command is None:
        return Circumstances()
    return Circumstances(scheme="command line", route=command.command_path)
