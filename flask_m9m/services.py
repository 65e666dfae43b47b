"""Services: what one app's flask-m9m consists of, whatever framework the app is written in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Response

from . import forking
from .address import ProxyHeader
from .audit import AuditTrail, Circumstances
from .auth import Declared, Identities
from .guard import Guard
from .metrics import Metrics, make_metrics
from .observing import ObservedGuard, TimedGuard
from .ratelimit import limit_stores
from .request_events import RequestEvents
from .settings import Settings
from .sightings import make_sightings
from .storage import ChangeFeed, Database

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .credentials import Caller, Credentials, CredentialTypes
    from .crypto.cipher import Cipher
    from .observing import Observer

    WhoCalls = Callable[[], Caller]


class Services:
    """One app's guard, and what stands behind it; nothing is opened before it is needed.

    Args:
        settings: the app's, complete.
        declared: what the app brings itself about who calls.
        app: what tells the app from others: a name and its instance path.
        clock: seconds since the epoch; also drives rate limits where it is not the system's.
        engine: the app's own database, in place of the one in the settings.
        private: whether this object of an app is to have rate limits of its own, as in a test.
        response_class: what the guard's answers are made of.
        sender: who sends signals.
        circumstances: tells in which request something happens.

    Attributes:
        trail: what everything that happens is told to.
        database: where state is kept.
        identities: what issues credentials, and knows whose they are.
        guard: what every request passes.
        metrics: what counts them, where that is switched on.
    """

    def __init__(
        self,
        settings: Settings,
        declared: Declared,
        app: tuple[str, str],
        *,
        clock: Callable[[], float] | None = None,
        engine: Engine | Callable[[], Engine] | None = None,
        private: bool = False,
        response_class: type[Response] = Response,
        sender: object = None,
        circumstances: Callable[[], Circumstances] = Circumstances,
    ) -> None:
        self._settings = settings.credentials
        self._lock = forking.lock(self)
        self._cipher: Cipher | None = None
        self._credentials: Credentials | None = None
        self._clock, steady = clock or time.time, clock or time.monotonic
        private = private or clock is not None
        revocation = settings.security.revocation
        self.database = Database(settings.database, app[1], engine)
        self.trail = AuditTrail(
            settings.audit, self.database, self.cipher, sender, circumstances, self._clock
        )
        self._feed = ChangeFeed(
            self.database,
            propagation=revocation.propagation,
            max_staleness=revocation.max_staleness,
            clock=steady,
        )
        stores = limit_stores(
            settings.performance.rate_limit,
            app,
            key=_counting_key(settings),
            private=private,
            clock=steady,
        )
        self.identities = Identities(
            settings.security, declared, self._feed, stores.attempts, self.trail, self._clock
        )
        self.metrics: Metrics | None = None
        observers: list[Observer] = [RequestEvents(self.trail, self._clock)]
        make_guard = ObservedGuard
        if settings.metrics.enabled:
            limiting = settings.performance.rate_limit
            self.metrics = make_metrics(limiting, app, stores, private=private)
            observers.append(self.metrics)
            make_guard = TimedGuard
        self.guard: Guard = make_guard(
            settings,
            self.identities,
            stores.limits,
            make_sightings(
                ProxyHeader(settings.server.proxy_headers),
                settings.performance.rate_limit.path,
                app,
                private=private,
            ),
            observers=observers,
            response_class=response_class,
            clock=self._clock,
        )

    def credentials(self, who_calls: WhoCalls, types: CredentialTypes) -> Credentials:
        """Return what keeps credentials, made when it is first needed.

        Args:
            who_calls: tells who asks where a call does not say.
            types: the credential types that the app knows.
        """
        cipher = self.cipher()
        with self._lock:
            if self._credentials is None:
                self._credentials = self._make_credentials(cipher, who_calls, types)
            return self._credentials

    def cipher(self) -> Cipher:
        """Return what encrypts under the settings' keys, made when it is first needed."""
        from .crypto.cipher import Cipher

        with self._lock:
            if self._cipher is None:
                self._cipher = Cipher(self._settings)
            return self._cipher

    def _make_credentials(
        self, cipher: Cipher, who_calls: WhoCalls, types: CredentialTypes
    ) -> Credentials:
        from .credentials import Credentials, DatabaseShelf, MemoryShelf

        settings = self._settings
        return Credentials(
            MemoryShelf() if settings.storage == "memory" else DatabaseShelf(self._feed),
            cipher,
            self.trail,
            settings.environment,
            who_calls,
            types,
            self._clock,
        )


def _counting_key(settings: Settings) -> bytes:
    """Return a secret of the app's that its other machines have too; nothing where it has none."""
    secret = settings.security.jwt.secret or settings.credentials.encryption_key
    return b"" if secret is None else secret.get_secret_value().encode()
