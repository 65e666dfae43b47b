"""AppState: what one Flask app's flask-m9m consists of, under `app.extensions["m9m"]`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flask import has_request_context

from . import forking
from .auth import Identities
from .context import get_identity
from .dev_secret import dev_secret
from .errors import SettingsError
from .exchange import CLIENT_ADDRESS, EXCHANGE, IDENTITY, ON_REQUEST, Exchange
from .guard import Guard
from .ratelimit import limit_stores
from .routes import Declarations, Routes
from .settings import CredentialSettings, Loaded, Settings, check_secret_key
from .storage import ChangeFeed, Database

if TYPE_CHECKING:
    from flask import Flask, Request
    from sqlalchemy import Engine

    from .credentials import Caller, Credentials
    from .crypto.cipher import Cipher

logger = logging.getLogger("flask_m9m")


class AppState:
    """One app's settings, and the guard and routes that are made of them at first use.

    Args:
        app: the app.
        loaded: its settings, and where they came from.
        declarations: what was declared on the `M9M`.
        clock: seconds since the epoch; also drives rate limits where it is not the system's.
        engine: the app's own database, in place of the one in the settings.
    """

    def __init__(
        self,
        app: Flask,
        loaded: Loaded,
        declarations: Declarations,
        clock: Callable[[], float] | None = None,
        engine: Engine | Callable[[], Engine] | None = None,
    ) -> None:
        self.app = app
        self.loaded = loaded
        self.declarations = declarations
        self._clock = clock
        self._engine = engine
        self._lock = forking.lock(self)
        self._guard: Guard | None = None
        self._database: Database
        self._credentials: Credentials | None = None
        self._feed: ChangeFeed
        self._identities: Identities
        self._routes: Routes

    @property
    def guard(self) -> Guard:
        """The guard, made at first use, when the app is complete."""
        return self._guard or self._assemble()

    @property
    def identities(self) -> Identities:
        """What issues credentials, and knows whose they are."""
        if self._guard is None:
            self._assemble()
        return self._identities

    @property
    def database(self) -> Database:
        """Where state is kept; opened when it is first needed."""
        if self._guard is None:
            self._assemble()
        return self._database

    @property
    def credentials(self) -> Credentials:
        """What keeps credentials, made when it is first needed."""
        guard = self._guard or self._assemble()
        with self._lock:
            if self._credentials is None:
                self._credentials = self._make_credentials(guard.settings.credentials)
            return self._credentials

    @property
    def cipher(self) -> Cipher:
        """What encrypts under the settings' keys."""
        return self.credentials.cipher

    def _make_credentials(self, settings: CredentialSettings) -> Credentials:
        from .credentials import Credentials, DatabaseShelf, MemoryShelf
        from .crypto.cipher import Cipher

        return Credentials(
            MemoryShelf() if settings.storage == "memory" else DatabaseShelf(self._feed),
            Cipher(settings),
            settings.environment,
            _who_calls,
            self.declarations.credential_types,
            self._clock or time.time,
        )

    @property
    def routes(self) -> Routes:
        """What holds for each route."""
        if self._guard is None:
            self._assemble()
        return self._routes

    def exchange(self, request: Request) -> Exchange:
        """Return the exchange of a request, beginning it where nothing has yet.

        It is kept with the request, which is one app's alone; an environ may be another app's as
        well, or be used again. There it lies only on its way from `SealedApp` to here.
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
                settings = self._with_secret(self.loaded.settings)
                clock, steady = self._clock or time.time, self._clock or time.monotonic
                revocation = settings.security.revocation
                self._database = Database(settings.database, self.app.instance_path, self._own())
                feed = self._feed = ChangeFeed(
                    self._database,
                    propagation=revocation.propagation,
                    max_staleness=revocation.max_staleness,
                    clock=steady,
                )
                stores = limit_stores(
                    settings.performance.rate_limit,
                    (self.app.import_name, self.app.instance_path),
                    key=_counting_key(settings),
                    private=self.app.testing or self._clock is not None,
                    clock=steady,
                )
                self._identities = Identities(
                    settings.security, self.declarations.auth, feed, stores.attempts, clock
                )
                guard = Guard(
                    settings,
                    self._identities,
                    stores.limits,
                    response_class=self.app.response_class,
                    clock=clock,
                )
                self._routes = Routes(self.app, guard.policies, self.declarations)
                self._guard = guard
            return self._guard

    def _own(self) -> Engine | Callable[[], Engine] | None:
        """Return the app's own engine; a function gets the app's context, whatever the thread."""
        given = self._engine
        if not callable(given):
            return given

        def engine() -> Engine:
            with self.app.app_context():
                return given()

        return engine

    def _with_secret(self, settings: Settings) -> Settings:
        """Give development a secret of its own; say once where JWT stays switched off."""
        jwt = settings.security.jwt
        if jwt.secret is not None or jwt.enabled is False:
            return settings
        if not (settings.development.enabled or self.app.debug):
            logger.warning(
                "JWT is switched off: there is no security.jwt.secret (run: flask m9m init)"
            )
            return settings
        secret, path = dev_secret(self.app.instance_path)
        logger.warning("development: tokens are signed with the secret in %s", path)
        jwt = jwt.model_copy(update={"secret": secret})
        security = settings.security.model_copy(update={"jwt": jwt})
        return settings.model_copy(update={"security": security})


def _who_calls() -> Caller:
    """Return who sends the current request, or nobody; without one, the app itself."""
    from .credentials import SYSTEM

    return get_identity() if has_request_context() else SYSTEM


def _counting_key(settings: Settings) -> bytes:
    """Return a secret of the app's that its other machines have too; nothing where it has none."""
    secret = settings.security.jwt.secret or settings.credentials.encryption_key
    return b"" if secret is None else secret.get_secret_value().encode()
