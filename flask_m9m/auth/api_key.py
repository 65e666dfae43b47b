"""API keys in a header of their own, or in `Authorization: Api-Key …`.

Keys in the query string are not looked at: they end up in logs.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidApiKey, InvalidRequest, M9MError
from ..http.address import Client
from ..identity import FrozenDict, Identity
from ..processes.forking import fork_safe_lock
from ..ratelimit import RateLimit, parse_limits
from ..settings import APIKeySettings
from ..storage import ApiKey, ChangeFeed, Topic, User, moment
from .authenticator import Authenticator, Proved, credential_of
from .key_format import digest_of, is_key

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_REMEMBERED = 16_384
_SEVERAL = object()  # stands for more than one key


class ApiKeyAuthenticator(Authenticator):
    """Takes an API key from its header, or from `Authorization: Api-Key …`.

    Args:
        settings: the app's.
        feed: of the app's database.
        clock: seconds since the epoch.
    """

    scheme = "api_key"

    def __init__(
        self, settings: APIKeySettings, feed: ChangeFeed, clock: Callable[[], float] = time.time
    ) -> None:
        self._header = settings.header
        self._field = f"HTTP_{settings.header.upper().replace('-', '_')}"
        self._prefix = settings.prefix
        self._feed = feed
        self._clock = clock
        self._known = KnownKeys()
        self._used: dict[str, float] = {}
        feed.subscribe(self._known)
        feed.write_with(self._note_uses)

    def find(self, environ: WSGIEnvironment) -> object | None:
        """Return the request's key; what stands in its header and is no key of ours counts alone.

        Another service's key may come in a header of the same name, beside our credential.
        """
        in_header: str | None = environ.get(self._field)
        authorization: str | None = environ.get("HTTP_AUTHORIZATION")
        if authorization is None:
            return in_header
        named = credential_of(environ, "api-key")
        if in_header is None or not in_header.startswith(self._prefix):
            return named
        return in_header if named is None else _SEVERAL

    def authenticate(self, credential: Any, client: Client) -> Proved:
        """Return whose key it is, with its rights within its owner's.

        Raises:
            InvalidApiKey: for whatever is wrong with it.
            InvalidRequest: there were two.
            DatabaseUnavailable: it cannot be told.
        """
        if credential is _SEVERAL:
            raise InvalidRequest
        if not is_key(credential, self._prefix):
            raise InvalidApiKey
        self._feed.catch_up()
        digest = digest_of(credential)
        known = self._known.find(digest) or self._look_up(digest)
        identity, now = known.identity, self._clock()
        if identity.expires_at is not None and now >= identity.expires_at:
            raise InvalidApiKey
        self._used[known.key_id] = now
        self._feed.write_due()
        return identity, None

    def limits(self, identity: Identity) -> Sequence[tuple[RateLimit, str]]:
        """Return the key's own limits, in force even where no others are.

        A key and those that took its place count together.
        """
        return own_limits(identity.claims.get("rate_limit"), identity.claims["family"])

    def challenge(self, realm: str, error: M9MError) -> str:
        """Return the challenge, which names the header."""
        return f'ApiKey realm="{realm}", header="{self._header}"'

    def _look_up(self, digest: bytes) -> KnownKey:
        """Make the one query that a key costs that this process does not know."""
        if self._feed.has_nothing():
            raise InvalidApiKey
        noted = self._feed.noted()
        now = moment(self._clock())
        found = self._feed.ask(lambda transaction: transaction.identities.find_key(digest, now))
        if found is None:
            raise InvalidApiKey
        key, owner = found
        if owner is not None and owner.disabled:
            raise InvalidApiKey
        known = KnownKey.of(key, owner)
        self._feed.keep(noted, lambda: self._known.keep(digest, known))
        return known

    def _note_uses(self) -> None:
        """Write down when keys were last used."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            with self._feed.database.write(patience=0.05) as transaction:
                # A copy: a request that took the old dictionary may add to it even now.
                transaction.identities.note_key_uses(
                    {key: moment(at) for key, at in used.copy().items()}
                )
        except BaseException:
            self._used = {**used, **self._used}  # for the next time
            raise


def own_limits(notation: str | None, family: str) -> Sequence[tuple[RateLimit, str]]:
    """Return the limits of one key's family, each with what is counted under it."""
    if notation is None:
        return ()
    return [(limit, f"api-key:{family}") for limit in parse_limits(notation, name="api-key")]


class KnownKey(NamedTuple):
    """A key that holds, as it is remembered."""

    key_id: str
    identity: Identity

    @property
    def changes(self) -> tuple[tuple[str, str], ...]:
        """After which changes it does not count any more."""
        return (Topic.API_KEY, self.key_id), (Topic.USER, self.identity.subject)

    @classmethod
    def of(cls, key: ApiKey, owner: User | None) -> KnownKey:
        """Return what is remembered of a key, within its owner's rights."""
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
    """The keys that were used lately, by their digests; only such as hold."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, KnownKey] = OrderedDict()
        self._touched_by: dict[tuple[str, str], set[bytes]] = {}
        self._lock = fork_safe_lock()

    def find(self, digest: bytes) -> KnownKey | None:
        """Return a key; that there is none says nothing."""
        return self._known.get(digest)

    def keep(self, digest: bytes, known: KnownKey) -> None:
        """Remember a key, in place of the one that was kept first."""
        with self._lock:
            self._known[digest] = known
            for change in known.changes:
                self._touched_by.setdefault(change, set()).add(digest)
            if len(self._known) > _REMEMBERED:
                self._forget(next(iter(self._known)))

    def drop(self, topic: str, name: str) -> None:
        """Forget a key that changed, or the keys of a user who did."""
        with self._lock:
            for digest in list(self._touched_by.get((topic, name), ())):
                self._forget(digest)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._known.clear()
            self._touched_by.clear()

    def _forget(self, digest: bytes) -> None:
        for change in self._known.pop(digest).changes:
            touched = self._touched_by[change]
            touched.discard(digest)
            if not touched:
                del self._touched_by[change]
