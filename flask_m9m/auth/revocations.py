"""Revocations: which tokens no longer hold although they are signed and not expired.

What is revoked has a name: `jti:…` one token, `sid:…` a session, `sub:…` every token of a subject.
A subject's row has a version, the second in which that was done, or one more than the version
before; it grows even where a database was restored. A token whose `ver` is lower no longer holds;
one that has none (it was issued before, or by m9m) holds if it was issued clearly later. A value
that is long or not plain ASCII is hashed: `sub#…`.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from ..errors import InvalidToken
from ..identity import Identity
from ..processes.forking import fork_safe_lock
from ..storage import ChangeFeed, Topic
from ..text import name_of

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

_MOST = 16_384  # names that are remembered
_LONGEST = 200
_NOT_REVOKED = -1
_FOR_GOOD = 1 << 62  # the version of a revocation that has none
_EARLY = 65  # seconds that the clock of whoever issued a token may be ahead, as its `iat` may


class Revocations:
    """Refuses revoked tokens, from what this process knows.

    Up to 16,384 revocations are read at once and known completely; beyond that, names are asked
    for one by one, and what was answered is remembered until the feed says that it changed.

    Args:
        feed: of the app's database.
    """

    def __init__(self, feed: ChangeFeed) -> None:
        self._feed = feed
        self._known: OrderedDict[str, int] = OrderedDict()
        self._changed: set[str] = set()
        self._loaded = self._complete = False
        self._lock = fork_safe_lock()
        feed.subscribe(self)

    def check(self, identity: Identity) -> None:
        """Refuse a token that was revoked.

        Raises:
            InvalidToken: it was.
            DatabaseUnavailable: it cannot be told.
        """
        self._feed.catch_up()
        if self._feed.empty:
            return
        claims = identity.claims
        version = claims.get("ver")
        if version is None:
            version = max(0, int(claims.get("iat", 0)) - _EARLY)
        if self._version(_name("sub", identity.subject)) > version:
            raise InvalidToken("revoked, with all of its subject's", guess=False)
        sid = claims.get("sid")
        if sid is not None and self._version(_name("sid", str(sid))) >= 0:
            raise InvalidToken("revoked, with its session", guess=False)
        jti = identity.credential_id
        if jti is not None and self._version(_name("jti", jti)) >= 0:
            raise InvalidToken("revoked", guess=False)

    # What this process knows

    def drop(self, topic: str, name: str) -> None:
        """Ask anew for a name that changed."""
        if topic == Topic.REVOCATION:
            with self._lock:
                self._changed.add(name)
                self._known.pop(name, None)
                if len(self._changed) > _MOST:
                    self._forget()

    def clear(self) -> None:
        """Ask anew for everything."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._loaded = self._complete = False
        self._known.clear()
        self._changed.clear()

    def _version(self, name: str) -> int:
        """Return a revocation's version, -1 where there is none."""
        if not self._loaded:
            self._load()
        with self._lock:  # all three at one moment: a change moves a name from one to another
            known = self._known.get(name)
            complete = self._complete and name not in self._changed
        if known is not None:
            return known
        if complete:
            return _NOT_REVOKED
        noted = self._feed.noted()
        found = self._feed.ask(lambda transaction: transaction.identities.revocation(name))
        version = _NOT_REVOKED if found is None else _version_in(found)
        self._feed.keep(noted, lambda: self._keep(name, version))
        return version

    def _load(self) -> None:
        noted = self._feed.noted()
        found = self._feed.ask(lambda transaction: transaction.identities.revocations(_MOST + 1))

        def fill() -> None:
            with self._lock:
                self._forget()
                self._known.update((row[0], _version_in(row)) for row in found[:_MOST])
                self._complete = len(found) <= _MOST
                self._loaded = True

        self._feed.keep(noted, fill)

    def _keep(self, name: str, version: int) -> None:
        with self._lock:
            if self._complete and version == _NOT_REVOKED:
                self._changed.discard(name)
                return
            self._known[name] = version
            self._changed.discard(name)
            if len(self._known) > _MOST:
                self._complete = False  # what is forgotten has to be asked for again
                self._known.popitem(last=False)


def revoke_token(
    transaction: Transaction, jti: str, now: datetime, expires_at: datetime | None
) -> None:
    """Revoke one token.

    Args:
        transaction: in which it is done.
        jti: the token's.
        now: the moment.
        expires_at: when the token expires; `None`: that is not known.
    """
    _revoke(transaction, _name("jti", jti), now, expires_at)


def revoke_session(transaction: Transaction, sid: str, now: datetime, expires_at: datetime) -> None:
    """End a session and revoke its access tokens, until the last of them expires."""
    if name_of(sid) is not None:
        transaction.identities.end_session(sid, now)
    _revoke(transaction, _name("sid", sid), now, expires_at)


def revoke_subject(transaction: Transaction, subject: str, now: datetime) -> None:
    """Revoke every token and session of a subject that there is by now."""
    version = max(version_of(transaction, subject) + 1, int(now.timestamp()))
    if name_of(subject) is not None:
        transaction.identities.end_sessions_of(subject, now)
    _revoke(transaction, _name("sub", subject), now, None, version)


def version_of(transaction: Transaction, subject: str) -> int:
    """Return the version that a subject's new tokens have to carry; 0: none was ever revoked."""
    found = transaction.identities.revocation(_name("sub", subject))
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
    return _FOR_GOOD if row[1] is None else row[1]


def _name(kind: str, value: str) -> str:
    if len(value) <= _LONGEST and value.isascii() and value.isprintable():
        return f"{kind}:{value}"
    return f"{kind}#{sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
