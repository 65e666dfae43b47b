"""Assembly: builds one app's guard, identities, stores, trail and credentials."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from werkzeug.wrappers import Response

from ..audit.events import Circumstances
from ..audit.trail import AuditTrail
from ..auth.app_callbacks import AppCallbacks
from ..auth.identities import Identities
from ..guard.ignored_forwarding import make_ignored_forwarding
from ..guard.metrics.metrics import Metrics, make_metrics
from ..guard.observers import make_observers
from ..guard.pipeline import Guard
from ..http.address import ProxyHeader
from ..processes.forking import fork_safe_lock
from ..ratelimit.stores import limit_stores
from ..settings.models import Settings
from ..storage.database import Database
from ..storage.feed import ChangeFeed

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ..credentials.caller import Caller
    from ..credentials.credentials import Credentials
    from ..credentials.encryption.cipher import Cipher, Record
    from ..credentials.types import CredentialTypes

    WhoCalls = Callable[[], Caller]


class Assembly:
    """One app's guard and the parts it works with; nothing is opened before it is needed.

    Args:
        settings: the app's, complete.
        callbacks: the app's own verifier, loader and authentication schemes.
        app: the app's name and instance path, which tell it from others.
        clock: seconds since the epoch; also drives rate limits where it is not the system's.
        engine: the app's own database, in place of the one in the settings.
        private: whether this app object has rate limits of its own, as in a test.
        response_class: the class of the guard's own responses.
        sender: the sender of signals.
        circumstances: describes the current request for the audit trail.

    Attributes:
        trail: the audit trail.
        database: the app's database.
        identities: the app's authentication.
        guard: the pipeline of every request.
        metrics: counts requests, where metrics are switched on.
    """

    def __init__(
        self,
        settings: Settings,
        callbacks: AppCallbacks,
        app: tuple[str, str],
        *,
        clock: Callable[[], float] | None = None,
        engine: Engine | Callable[[], Engine] | None = None,
        private: bool = False,
        response_class: type[Response] = Response,
        sender: object = None,
        circumstances: Callable[[], Circumstances] = Circumstances,
    ) -> None:
        self._settings = settings
        self._app = app
        self._lock = fork_safe_lock()
        self._cipher: Cipher | None = None
        self._credentials: Credentials | None = None
        self._clock, self._steady = clock or time.time, clock or time.monotonic
        self._private = private or clock is not None
        self.database = Database(settings.database, app[1], engine)
        trail_cipher = _TrailKeyCipher(self.cipher)
        self.trail = AuditTrail(
            settings.audit, self.database, trail_cipher, sender, circumstances, self._clock
        )
        self._stores = limit_stores(
            settings.performance.rate_limit,
            app,
            key=_counting_key(settings),
            private=self._private,
            clock=self._steady,
        )
        self._feed, self.identities = self._make_identities(callbacks)
        self.metrics = self._make_metrics()
        self.guard = self._make_guard(response_class)

    def _make_identities(self, callbacks: AppCallbacks) -> tuple[ChangeFeed, Identities]:
        security = self._settings.security
        feed = ChangeFeed(
            self.database,
            propagation=security.revocation.propagation,
            max_staleness=security.revocation.max_staleness,
            clock=self._steady,
        )
        identities = Identities(
            security, callbacks, feed, self._stores.attempts, self.trail, self._clock
        )
        return feed, identities

    def _make_metrics(self) -> Metrics | None:
        if not self._settings.metrics.enabled:
            return None
        limiting = self._settings.performance.rate_limit
        return make_metrics(limiting, self._app, self._stores, private=self._private)

    def _make_guard(self, response_class: type[Response]) -> Guard:
        settings = self._settings
        ignored_forwarding = make_ignored_forwarding(
            ProxyHeader(settings.server.proxy_headers),
            settings.performance.rate_limit.path,
            self._app,
            private=self._private,
        )
        return Guard(
            settings,
            self.identities,
            self._stores.limits,
            ignored_forwarding,
            observers=make_observers(self.trail, self._clock, self.metrics),
            response_class=response_class,
            clock=self._clock,
        )

    def credentials(self, who_calls: WhoCalls, types: CredentialTypes) -> Credentials:
        """Get the credential store, made when it is first needed.

        Args:
            who_calls: returns the caller where a call does not name one.
            types: the credential types that the app knows.
        """
        cipher = self.cipher()
        with self._lock:
            if self._credentials is None:
                self._credentials = self._make_credentials(cipher, who_calls, types)
            return self._credentials

    def cipher(self) -> Cipher:
        """Get the cipher under the settings' keys, made when it is first needed."""
        from ..credentials.encryption.cipher import Cipher

        with self._lock:
            if self._cipher is None:
                self._cipher = Cipher(self._settings.credentials)
            return self._cipher

    def _make_credentials(
        self, cipher: Cipher, who_calls: WhoCalls, types: CredentialTypes
    ) -> Credentials:
        from ..credentials.credentials import Credentials
        from ..credentials.stores import DatabaseCredentialStore, MemoryCredentialStore

        settings = self._settings.credentials
        in_memory = settings.storage == "memory"
        return Credentials(
            MemoryCredentialStore() if in_memory else DatabaseCredentialStore(self._feed),
            cipher,
            self.trail,
            settings.environment,
            who_calls,
            types,
            self._clock,
        )


class _TrailKeyCipher:
    """The cipher, bound to the record of the audit trail's key (see `audit.chain.KeyCipher`).

    Args:
        cipher: returns the cipher, made when it is first needed.
    """

    def __init__(self, cipher: Callable[[], Cipher]) -> None:
        self._cipher = cipher

    def seal(self, key: bytes) -> str:
        return self._cipher().encrypt_record(key, _trail_key_record())

    def open(self, envelope: str) -> bytes:
        return self._cipher().decrypt_record(envelope, _trail_key_record())

    def key_id_of(self, envelope: object) -> str | None:
        from ..credentials.encryption.cipher import key_id_of

        return key_id_of(envelope)

    def is_current(self, envelope: str) -> bool:
        return envelope.rpartition(":")[0] == self._cipher().seal


def _trail_key_record() -> Record:
    from ..credentials.encryption.cipher import Record

    return Record("audit", "flask-m9m audit key")  # no credential's type has a space


def _counting_key(settings: Settings) -> bytes:
    """Take a secret that the app's machines share, to hash clients; empty where it has none."""
    secret = settings.security.jwt.secret or settings.credentials.encryption_key
    return b"" if secret is None else secret.get_secret_value().encode()
