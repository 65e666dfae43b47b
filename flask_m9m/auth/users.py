"""Users: what `m9m.users` offers an app."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..audit import AuditTrail, EventName
from ..crypto import LONGEST, PasswordHasher
from ..errors import Conflict, NotFound, ServiceUnavailable
from ..identity import names
from ..processes.forking import fork_safe_lock
from ..storage import ChangeFeed, Topic, User, moment
from ..text import checked_name, is_control, is_surrogate, name_of
from .revocations import revoke_subject

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

_SHORTEST_PASSWORD = 8  # NIST SP 800-63B-4 §3.1.1.2
_PATIENCE = 0.05  # seconds that a login waits for other writers


class Users:
    """Makes, lists, changes and disables users, and verifies their passwords.

    Args:
        feed: of the app's database.
        hasher: hashes and verifies.
        trail: told what changes.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        feed: ChangeFeed,
        hasher: PasswordHasher,
        trail: AuditTrail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._feed = feed
        self._trail = trail
        self._hasher = hasher
        self._clock = clock
        self._nobodys_hash: str | None = None
        self._lock = fork_safe_lock()

    def create(
        self,
        username: str,
        password: str,
        roles: str | Collection[str] = (),
        scopes: str | Collection[str] = (),
    ) -> User:
        """Make a user.

        Args:
            username: 1 to 255 printable characters without a colon (RFC 7617 §2), kept in NFC.
            password: 8 to 4096 characters, none of them a control character.
            roles: what the user is.
            scopes: what the user may do.

        Raises:
            ValueError: an argument is wrong.
            Conflict: there is a user of that name.
            DatabaseUnavailable: the user could not be kept.
        """
        user = User(
            username=_username(username),
            scopes=frozenset(names("scopes", scopes)),
            roles=frozenset(names("roles", roles)),
            disabled=False,
            created_at=moment(self._clock()),
            password_hash=self._hasher.hash(_password(password)),
        )
        with self._feed.write() as transaction:
            if transaction.identities.user(user.username) is not None:
                raise Conflict(f"there is a user {user.username!a} already")
            transaction.identities.add_user(user)
            transaction.append_change(Topic.USER, user.username, user.created_at)
            self._note(transaction, user.username, "created")
        return user

    def list(self) -> Sequence[User]:
        """Return all users by name, disabled ones too."""
        if not self._feed.database.present():
            return []
        return self._feed.database.read(lambda transaction: transaction.identities.users())

    def get(self, username: str) -> User | None:
        """Return a user by name."""
        return self._find(name_of(username))

    def update(
        self,
        username: str,
        roles: str | Collection[str] | None = None,
        scopes: str | Collection[str] | None = None,
    ) -> None:
        """Change what a user is and may do; it holds for API keys and new tokens at once.

        Args:
            username: whose.
            roles: all of them from now on; left out, as they are.
            scopes: all of them from now on; left out, as they are.

        Raises:
            NotFound: there is no such user.
            ValueError: a role or a scope is none.
        """
        changes: dict[str, Any] = {}
        if roles is not None:
            changes["roles"] = frozenset(names("roles", roles))
        if scopes is not None:
            changes["scopes"] = frozenset(names("scopes", scopes))
        self._change("rights", username, changes, revoke=False)

    def set_password(self, username: str, password: str) -> None:
        """Change a password, which revokes all the user's tokens and sessions.

        Raises:
            NotFound: there is no such user.
            ValueError: it cannot be a password.
        """
        hashed = self._hasher.hash(_password(password))
        self._change("password", username, {"password_hash": hashed}, revoke=True)

    def disable(self, username: str) -> None:
        """Keep a user out: the password, all tokens and sessions, and the user's API keys.

        Raises:
            NotFound: there is no such user.
        """
        self._change("disabled", username, {"disabled": True}, revoke=True)

    def enable(self, username: str) -> None:
        """Let a disabled user in again; tokens of before stay revoked.

        Raises:
            NotFound: there is no such user.
        """
        self._change("enabled", username, {"disabled": False}, revoke=False)

    def verify_password(self, username: str, password: str) -> User | None:
        """Return the user whose name and password these are.

        An unknown name and a disabled user cost what a wrong password costs. Attempts are not
        counted here: HTTP Basic and the REST API's login do that.

        Raises:
            ServiceUnavailable: too many are being verified.
            DatabaseUnavailable: it cannot be told.
        """
        name, database = name_of(username), self._feed.database
        if database.local and not database.present():
            return None
        nobody, user = self._hash_of_nobody(), self._find(name)
        while True:
            right = self._hasher.verify(nobody if user is None else user.password_hash, password)
            if user is None or not right:
                return None
            # It may have been changed, or the user disabled, while this one waited its turn.
            verified, user = user, self._find(name)
            if user is None or user.disabled:
                return None
            if user.password_hash == verified.password_hash:
                self._rehash(user, password)
                return user

    def _find(self, name: str | None) -> User | None:
        if name is None:
            return None
        return self._feed.ask_if_there(
            lambda transaction: transaction.identities.user(name), lambda: None
        )

    def _rehash(self, user: User, password: str) -> None:
        """Bring a hash to today's parameters; where that cannot be done now, another login does."""
        if self._hasher.is_current(user.password_hash):
            return
        with suppress(ServiceUnavailable):
            hashed = self._hasher.hash(password)
            with self._feed.database.write(patience=_PATIENCE) as transaction:
                transaction.identities.replace_hash(user.username, user.password_hash, hashed)

    def _change(self, what: str, username: str, changes: dict[str, Any], *, revoke: bool) -> None:
        name, now = name_of(username), moment(self._clock())
        if name is None or not self._feed.database.present():
            raise _not_found(username)
        with self._feed.write() as transaction:
            if transaction.identities.user(name) is None:
                raise _not_found(name)
            if changes:
                transaction.identities.change_user(name, **changes)
            transaction.append_change(Topic.USER, name, now)
            if revoke:
                revoke_subject(transaction, name, now)
            self._note(transaction, name, what)

    def _note(self, transaction: Transaction, username: str, change: str) -> None:
        event = self._trail.event(EventName.USER_CHANGED, target=username, change=change)
        self._trail.record_change(transaction, event)

    def _hash_of_nobody(self) -> str:
        with self._lock:
            if self._nobodys_hash is None:
                self._nobodys_hash = self._hasher.hash(secrets.token_urlsafe(16))
            return self._nobodys_hash


def _username(given: str) -> str:
    name = checked_name("a username", given)
    if ":" in name:
        raise ValueError("a username has no colon (RFC 7617 §2)")
    return name


def _password(given: str) -> str:
    if not isinstance(given, str) or not _SHORTEST_PASSWORD <= len(given) <= LONGEST:
        raise ValueError(f"a password has {_SHORTEST_PASSWORD} to {LONGEST} characters")
    if any(is_control(one) or is_surrogate(one) for one in given):
        raise ValueError("a password has no control characters (RFC 7617 §2)")
    return given


def _not_found(name: object) -> NotFound:
    return NotFound(f"there is no user {str(name)[:64]!a}")
