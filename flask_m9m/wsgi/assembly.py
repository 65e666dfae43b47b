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
from ..guard.ignored_forwarding import make_ignored_forwarding_log
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
    from ..guard.metrics.metrics import Metrics

    WhoCalls = Callable[[], Caller]


class Assembly:
    """Builds one app's guard and the parts that it uses; opens files and databases on first use.

    Args:
        settings: the app's complete settings.
        callbacks: the app's own password verifier, identity loader and authentication schemes.
        app: the app's name and instance path, which identify it.
        clock: seconds since the epoch; if it is given, rate limits use it too.
        engine: the app's own SQLAlchemy engine, instead of the database in the settings.
        private: whether this app object shares its rate limits with no other, as in a test.
        response_class: the class of the guard's own responses.
        sender: the sender of signals.
        circumstances: describes the current request for the audit trail.

    Attributes:
        trail: the audit trail.
        database: the app's database.
        identities: the app's authentication.
        guard: the pipeline of every request.
        metrics: counts requests; `None` if metrics are switched off.
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
        self._clock, self._monotonic = clock or time.time, clock or time.monotonic
        self._private = private or clock is not None
        self.database = Database(settings.database, app[1], engine)
        trail_cipher = _TrailKeyCipher(self.cipher)
        self.trail = AuditTrail(
            settings.audit, self.database, trail_cipher, sender, circumstances, self._clock
        )
        self._stores = limit_stores(
            settings.performance.rate_limit,
            app,
            key=_client_hash_key(settings),
            private=self._private,
            clock=self._monotonic,
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
            clock=self._monotonic,
        )
        feed.carry = self.trail.keep_circumstances
        identities = Identities(
            security,
            callbacks,
            feed,
            self._stores.attempts,
            self.trail,
            self._clock,
            _client_hash_key(self._settings),
        )
        return feed, identities

    def _make_metrics(self) -> Metrics | None:
        if not self._settings.metrics.enabled:
            return None
        from ..guard.metrics.metrics import make_metrics

        limiting = self._settings.performance.rate_limit
        return make_metrics(limiting, self._app, self._stores, private=self._private)

    def _make_guard(self, response_class: type[Response]) -> Guard:
        settings = self._settings
        ignored_forwarding = make_ignored_forwarding_log(
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
            monotonic=self._monotonic,
        )

    def credentials(self, who_calls: WhoCalls, types: CredentialTypes) -> Credentials:
        """Return the stored credentials' interface; the first call makes it.

        Args:
            who_calls: returns the caller if a method is called without `caller`.
            types: the credential types that the app has registered.
        """
        cipher = self.cipher()
        with self._lock:
            if self._credentials is None:
                self._credentials = self._make_credentials(cipher, who_calls, types)
            return self._credentials

    def cipher(self) -> Cipher:
        """Return the cipher with the settings' keys; the first call makes it."""
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
    """Encrypts the audit trail's key and nothing else (implements `audit.chain.KeyCipher`).

    Args:
        get_cipher: returns the app's cipher; called only when the trail's key is needed.
    """

    def __init__(self, get_cipher: Callable[[], Cipher]) -> None:
        self._get_cipher = get_cipher

    def seal(self, key: bytes) -> str:
        return self._get_cipher().encrypt_record(key, _trail_key_record())

    def open(self, envelope: str) -> bytes:
        return self._get_cipher().decrypt_record(envelope, _trail_key_record())

    def key_id_of(self, envelope: object) -> str | None:
        from ..credentials.encryption.cipher import key_id_of

        return key_id_of(envelope)

    def is_current(self, envelope: str) -> bool:
        # An envelope is `format:key id:payload`; `seal` is the first two parts of a new one.
        return envelope.rpartition(":")[0] == self._get_cipher().seal


def _trail_key_record() -> Record:
    from ..credentials.encryption.cipher import Record

    # A credential's type never contains a space, so no credential can have this record.
    return Record("audit", "flask-m9m audit key")


def _client_hash_key(settings: Settings) -> bytes:
    """Return the key to hash clients' names, the same on all machines; empty without a secret."""
    secret = (
        settings.performance.rate_limit.secret
        or settings.security.jwt.secret
        or settings.credentials.encryption_key
    )
    return b"" if secret is None else secret.get_secret_value().encode()
