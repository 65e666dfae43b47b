"""API key authentication: a key in its own header, or in `Authorization: Api-Key …`.

Keys in the query string are ignored: they end up in logs.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import InvalidApiKey, InvalidRequest, M9MError
from ...http.address import Client
from ...processes.bounded_cache import keep_newest
from ...processes.forking import fork_safe_lock
from ...ratelimit.limit import RateLimit, parse_limits
from ...settings.models import APIKeySettings
from ...storage.feed import ChangeFeed, Topic
from ...storage.records import ApiKey, User, moment
from ..api_key_format import is_key, key_digest
from ..identity import FrozenDict, Identity
from ..issued_keys import IssuedKeys
from ..lockout import Lockout
from .authenticator import Authenticator, Proved, credential_of, denial

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_CAPACITY = 16_384
_SEVERAL_KEYS = object()  # the credential of a request with two keys


class ApiKeyAuthenticator(Authenticator):
    """Authenticates requests with an API key, and notes when each key was last used.

    Args:
        settings: the header and the prefix of keys.
        feed: the change feed of the app's database.
        lockout: throttles made-up keys.
        clock: seconds since the epoch.
    """

    scheme = "api_key"

    def __init__(
        self,
        settings: APIKeySettings,
        feed: ChangeFeed,
        lockout: Lockout,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._header = settings.header
        self._field = f"HTTP_{settings.header.upper().replace('-', '_')}"
        self._prefix = settings.prefix
        self._feed = feed
        self._lockout = lockout
        self._issued = IssuedKeys(feed, clock)
        self._clock = clock
        self._known = KnownKeys()
        self._used: dict[str, float] = {}
        feed.subscribe(self._known)
        feed.add_batch(self._write_uses)

    def find(self, environ: WSGIEnvironment) -> object | None:
        """Find the request's API key.

        A value without our prefix counts only if `Authorization` is absent: another service may
        use a header of the same name beside our credential.
        """
        in_header: str | None = environ.get(self._field)
        authorization: str | None = environ.get("HTTP_AUTHORIZATION")
        if authorization is None:
            return in_header
        named = credential_of(environ, "api-key")
        if in_header is None or not in_header.startswith(self._prefix):
            return named
        return in_header if named is None else _SEVERAL_KEYS

    def authenticate(self, credential: Any, client: Client) -> Proved:
        """Verify an API key; its rights are limited to its owner's.

        Raises:
            InvalidApiKey: the key is malformed, unknown, expired or revoked.
            InvalidRequest: the request has two keys.
            TooManyAttempts: the client has presented too many made-up keys, and this is another.
            DatabaseUnavailable: the key cannot be looked up.
        """
        if credential is _SEVERAL_KEYS:
            raise InvalidRequest
        if not is_key(credential, self._prefix):
            raise InvalidApiKey
        self._feed.catch_up()
        digest = key_digest(credential)
        known = self._known.find(digest) or self._find_unknown(digest, client)
        identity, now = known.identity, self._clock()
        if identity.expires_at is not None and now >= identity.expires_at:
            raise InvalidApiKey
        self._used[known.key_id] = now
        self._feed.write_due()
        return identity, None

    def limits(self, identity: Identity) -> Sequence[tuple[RateLimit, str]]:
        """Return the key's own limits, which apply even if rate limits are switched off.

        A key and the keys that replaced it in rotations share the limits.
        """
        return own_limits(identity.claims.get("rate_limit"), identity.claims["family"])

    def challenge(self, realm: str, error: M9MError) -> str:
        """Build the challenge, which names the header, or the scopes that the key lacks."""
        if denied := denial(error):
            return f'ApiKey realm="{realm}"{denied}'
        return f'ApiKey realm="{realm}", header="{self._header}"'

    def _find_unknown(self, digest: bytes, client: Client) -> KnownKey:
        """Look up a key that is not cached; a locked-out client's made-up key costs no query."""
        with self._lockout.look_up(client, lambda: not self._issued.may_include(digest)):
            try:
                return self._look_up(digest)
            except InvalidApiKey:
                if self._lockout.is_locked(client):
                    self._issued.load()
                raise

    def _look_up(self, digest: bytes) -> KnownKey:
        """Look a key up in the database, with one query, and cache it."""
        if self._feed.has_no_database() and not self._feed.database.is_there():
            raise InvalidApiKey
        ticket = self._feed.fill_ticket()
        now = moment(self._clock())
        found = self._feed.ask(lambda transaction: transaction.identities.find_key(digest, now))
        if found is None:
            raise InvalidApiKey
        key, owner = found
        if owner is not None and owner.disabled:
            raise InvalidApiKey
        known = KnownKey.of(key, owner)
        self._feed.keep(ticket, lambda: self._known.keep(digest, known))
        return known

    def _write_uses(self) -> None:
        """Write the times at which keys were last used to the database."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            with self._feed.database.write(patience=0.05) as transaction:
                # Copied, since a request that read the old dictionary may still add to it.
                transaction.identities.note_key_uses(
                    {key: moment(at) for key, at in used.copy().items()}
                )
        except BaseException:
            self._used = {**used, **self._used}  # keep them for the next batch
            raise


def own_limits(notation: str | None, family: str) -> Sequence[tuple[RateLimit, str]]:
    """Return the rate limits of a family of keys, each with the client's key."""
    if notation is None:
        return ()
    return [(limit, f"api-key:{family}") for limit in parse_limits(notation, name="api-key")]


class KnownKey(NamedTuple):
    """A valid key, as it is cached.

    Attributes:
        key_id: the key's id.
        identity: the identity that the key authenticates.
    """

    key_id: str
    identity: Identity

    @property
    def changes(self) -> tuple[tuple[str, str], ...]:
        """The changes, as topic and name, after which the cached key is stale."""
        return (Topic.API_KEY, self.key_id), (Topic.USER, self.identity.subject)

    @classmethod
    def of(cls, key: ApiKey, owner: User | None) -> KnownKey:
        """Build the cached form of a stored key, with its rights limited to its owner's."""
        scopes, roles = key.scopes, key.roles
        if owner is not None:
            scopes, roles = scopes & owner.scopes, roles & owner.roles
        identity = Identity(
            subject=key.owner,
            scheme=ApiKeyAuthenticator.scheme,
            scopes=scopes,
            roles=roles,
            claims=FrozenDict(name=key.name, rate_limit=key.rate_limit, family=key.family),
            credential_id=key.id,
            expires_at=None if key.expires_at is None else key.expires_at.timestamp(),
        )
        return cls(key.id, identity)


class KnownKeys:
    """A bounded cache of recently used valid keys, by their digests."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, KnownKey] = OrderedDict()
        self._touched_by: dict[tuple[str, str], set[bytes]] = {}
        self._lock = fork_safe_lock()

    def find(self, digest: bytes) -> KnownKey | None:
        """Find a cached key; a key that is not cached may be valid all the same."""
        return self._known.get(digest)

    def keep(self, digest: bytes, known: KnownKey) -> None:
        """Cache a key; a full cache drops its oldest entry."""
        with self._lock:
            dropped = keep_newest(self._known, digest, known, _CAPACITY)
            for change in known.changes:
                self._touched_by.setdefault(change, set()).add(digest)
            if dropped is not None:
                self._unlink(*dropped)

    def drop(self, topic: str, name: str) -> None:
        """Drop a changed key, or all keys of a changed user."""
        with self._lock:
            for digest in list(self._touched_by.get((topic, name), ())):
                self._unlink(digest, self._known.pop(digest))

    def clear(self) -> None:
        """Drop all keys."""
        with self._lock:
            self._known.clear()
            self._touched_by.clear()

    def _unlink(self, digest: bytes, known: KnownKey) -> None:
        for change in known.changes:
            touched = self._touched_by[change]
            touched.discard(digest)
            if not touched:
                del self._touched_by[change]
