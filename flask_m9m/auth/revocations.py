"""Revocations: revokes tokens, sessions and all tokens of a subject, and refuses revoked tokens.

A revocation's name is `jti:…` for a token, `sid:…` for a session and `sub:…` for all tokens of a
subject. A subject's row has a version: the second of the revocation, or the previous version plus
1 if that is higher, so that it increases even after a database was restored. A token with a lower
`ver` is revoked. A token without `ver` (issued before the first revocation, or by m9m) is revoked
unless its `iat` is at least 65 seconds past the version. A value that is long or not printable
ASCII is hashed: `sub#…`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from ..errors import Conflict, InvalidApiKey, InvalidCredentials, InvalidToken
from ..processes.bounded_cache import keep_newest
from ..processes.polled_lock import PolledLock
from ..storage.feed import ChangeFeed, Topic
from .identity import Identity
from .names import name_of

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

_OF_SESSION = {"sid", "scope", "roles"}  # claims of our tokens; other issuers have a `sid` too
_CAPACITY = 16_384  # cached names
_MAX_VALUE = 200
_TOKEN_SCHEMES = ("bearer", "cookie")
_NOT_REVOKED = -1
_NO_VERSION = 1 << 62  # stands in where a row has no version, which is above all versions
_CLOCK_SKEW = 65  # seconds by which an issuer's clock, and so `iat`, may be ahead


class Revocations:
    """Refuses revoked tokens, using a cache of revocations.

    Up to 16,384 revocations are loaded together, so that the cache is complete. With more, each
    name is queried when first needed, and cached until the feed reports a change.

    Args:
        feed: the change feed of the app's database.
    """

    def __init__(self, feed: ChangeFeed) -> None:
        self._feed = feed
        self._known: OrderedDict[str, int] = OrderedDict()
        self._changed: set[str] = set()
        self._loaded = self._complete = False
        self._lock = PolledLock()
        feed.subscribe(self)

    def check(self, identity: Identity) -> None:
        """Refuse a token that was revoked.

        Args:
            identity: the identity of a verified token.

        Raises:
            InvalidToken: the token was revoked.
            DatabaseUnavailable: the revocations cannot be read.
        """
        self._feed.catch_up()
        if not self._feed.empty:
            _refuse_revoked(identity, self._version)
        elif "ver" in identity.claims or identity.claims.keys() >= _OF_SESSION:
            # A session is stored before its tokens are issued, and a version after a revocation.
            self._feed.database.require_file()

    # The cache

    def drop(self, topic: str, name: str) -> None:
        """Drop a changed revocation from the cache."""
        if topic == Topic.REVOCATION:
            with self._lock:
                self._changed.add(name)
                self._known.pop(name, None)
                if len(self._changed) > _CAPACITY:
                    self._forget()

    def clear(self) -> None:
        """Drop all revocations from the cache."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._loaded = self._complete = False
        self._known.clear()
        self._changed.clear()

    def _version(self, name: str) -> int:
        """Find the version of a revocation; -1 if the name is not revoked."""
        if not self._loaded:
            self._load()
        with self._lock:  # one snapshot of all three: a change moves a name between them
            known = self._known.get(name)
            complete = self._complete and name not in self._changed
        if known is not None:
            return known
        if complete:
            return _NOT_REVOKED
        ticket = self._feed.fill_ticket()
        found = self._feed.ask(lambda transaction: transaction.identities.revocation(name))
        version = _NOT_REVOKED if found is None else _version_in(found)
        self._feed.keep(ticket, lambda: self._keep(name, version))
        return version

    def _load(self) -> None:
        ticket = self._feed.fill_ticket()
        found = self._feed.ask(
            lambda transaction: transaction.identities.revocations(_CAPACITY + 1)
        )

        def fill() -> None:
            with self._lock:
                self._forget()
                self._known.update((row[0], _version_in(row)) for row in found[:_CAPACITY])
                self._complete = len(found) <= _CAPACITY
                self._loaded = True

        self._feed.keep(ticket, fill)

    def _keep(self, name: str, version: int) -> None:
        with self._lock:
            if self._complete and version == _NOT_REVOKED:
                self._changed.discard(name)
                return
            self._changed.discard(name)
            if keep_newest(self._known, name, version, _CAPACITY) is not None:
                self._complete = False  # the dropped name has to be queried again


def _refuse_revoked(identity: Identity, version_by_name: Callable[[str], int]) -> None:
    """Refuse a token that was revoked, as itself, with its session, or with its subject."""
    claims = identity.claims
    version = claims.get("ver")
    if version is None:
        version = max(0, int(claims.get("iat", 0)) - _CLOCK_SKEW)
    if version_by_name(revocation_name("sub", identity.subject)) > version:
        raise InvalidToken("all tokens of the subject were revoked", guess=False)
    sid = claims.get("sid")
    if sid is not None and version_by_name(revocation_name("sid", str(sid))) >= 0:
        raise InvalidToken("the session of the token was revoked", guess=False)
    jti = identity.credential_id
    if jti is not None and version_by_name(revocation_name("jti", jti)) >= 0:
        raise InvalidToken("the token was revoked", guess=False)


def require_unrevoked(transaction: Transaction, identity: Identity) -> None:
    """Refuse a token or API key that was revoked before this transaction.

    A process learns of revocations with a delay: what lasts longer than a request, such as a new
    API key, needs this check in the transaction that stores it. A credential of another scheme,
    such as a password, is verified in each request and has no time to compare with: it is refused
    if its user is disabled.

    Raises:
        InvalidToken: the token was revoked.
        InvalidApiKey: the API key was revoked.
        InvalidCredentials: the user of another credential is disabled.
        Conflict: the API key was replaced by another, which does not know what this one makes.
    """
    if identity.scheme in _TOKEN_SCHEMES:
        _refuse_revoked(identity, lambda name: _stored_version(transaction, name))
        return
    if identity.scheme != "api_key":
        name = name_of(identity.subject)
        user = None if name is None else transaction.identities.user(name)
        if user is not None and user.disabled:
            raise InvalidCredentials
        return
    key = transaction.identities.key(identity.credential_id or "")
    if key is None or key.revoked_at is not None:
        raise InvalidApiKey
    if key.rotated_at is not None:
        raise Conflict("this API key was replaced: ask with the key that replaced it")


def _stored_version(transaction: Transaction, name: str) -> int:
    found = transaction.identities.revocation(name)
    return _NOT_REVOKED if found is None else _version_in(found)


def revoke_token(
    transaction: Transaction, jti: str, now: datetime, expires_at: datetime | None
) -> None:
    """Revoke one token.

    Args:
        transaction: the transaction to write in.
        jti: the token's id.
        now: the time of the revocation.
        expires_at: when the token expires; `None` if unknown, which keeps the revocation forever.
    """
    _revoke(transaction, revocation_name("jti", jti), now, expires_at)


def revoke_session(transaction: Transaction, sid: str, now: datetime, expires_at: datetime) -> None:
    """End a session and revoke its access tokens.

    Args:
        transaction: the transaction to write in.
        sid: the session's id.
        now: the time of the revocation.
        expires_at: when the last access token of the session expires.
    """
    if name_of(sid) is not None:
        transaction.identities.end_session(sid, now)
    _revoke(transaction, revocation_name("sid", sid), now, expires_at)


def revoke_subject(transaction: Transaction, subject: str, now: datetime) -> None:
    """Revoke all existing tokens and end all sessions of a subject."""
    version = max(version_of(transaction, subject) + 1, int(now.timestamp()))
    if name_of(subject) is not None:
        transaction.identities.end_sessions_of(subject, now)
    _revoke(transaction, revocation_name("sub", subject), now, None, version)


def version_of(transaction: Transaction, subject: str) -> int:
    """Find the version (`ver`) for a subject's new tokens; 0 if none was ever revoked."""
    found = transaction.identities.revocation(revocation_name("sub", subject))
    return 0 if found is None else found[1] or 0


def _revoke(
    transaction: Transaction,
    name: str,
    now: datetime,
    expires_at: datetime | None,
    version: int | None = None,
) -> None:
    transaction.identities.revoke(name, now, expires_at, version)
    transaction.append_change(Topic.REVOCATION, name, now)


def _version_in(row: tuple[str, int | None]) -> int:
    return _NO_VERSION if row[1] is None else row[1]


def revocation_name(kind: str, value: str) -> str:
    """Return the name of a revocation: `sub:…`, `sid:…` or `jti:…`."""
    if len(value) <= _MAX_VALUE and value.isascii() and value.isprintable():
        return f"{kind}:{value}"
    return f"{kind}#{sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
