"""Users: `m9m.users`, the users table with passwords, roles and scopes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ..audit.events import EventName
from ..audit.trail import AuditTrail
from ..errors import Conflict, NotFound, ServiceUnavailable, ValidationError
from ..processes.forking import fork_safe_lock
from ..settings.arguments import check_type
from ..storage.feed import ChangeFeed, Topic
from ..storage.records import User, moment
from ..storage.timed_changes import change_in_time
from .api_keys import revoke_keys_of
from .identity import names
from .names import checked_name, name_of
from .password_policy import PasswordPolicy
from .passwords import PasswordHasher
from .revocations import revoke_subject

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

T = TypeVar("T")

_PATIENCE = 0.05  # seconds that a login waits for the database's write lock


class InvalidUser(ValidationError, ValueError):
    """A field of a user is not valid: a 400 where a view does not catch it.

    Args:
        field: the field.
        reason: what is wrong; it does not contain the value.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__([{"field": field, "message": reason}])
        self.description = reason

    def __str__(self) -> str:
        return str(self.description)


class Users:
    """Creates, lists, changes and disables users, and verifies their passwords.

    Args:
        feed: the change feed of the app's database.
        hasher: hashes and verifies passwords.
        policy: decides which passwords users may choose.
        trail: the audit trail.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        feed: ChangeFeed,
        hasher: PasswordHasher,
        policy: PasswordPolicy,
        trail: AuditTrail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._feed = feed
        self._trail = trail
        self._hasher = hasher
        self._policy = policy
        self._clock = clock
        self._dummy_hash: str | None = None
        self._lock = fork_safe_lock()

    def create(
        self,
        username: str,
        password: str,
        roles: str | Collection[str] = (),
        scopes: str | Collection[str] = (),
    ) -> User:
        """Create a user.

        Args:
            username: 1 to 255 printable characters without a colon (RFC 7617 §2), stored in NFC.
            password: 8 (`security.users.min_password_length`) to 4096 characters without control
                characters, none of the commonest, nor one that `@m9m.breach_checker` knows.
            roles: the user's roles.
            scopes: the user's rights.

        Raises:
            InvalidUser: an argument is not valid; it is a `ValueError`, and a 400 where a view
                does not catch it.
            Conflict: the username is taken.
            DatabaseUnavailable: the user could not be stored.
        """
        user = User(
            username=_valid("username", _username, username),
            scopes=_rights("scopes", scopes),
            roles=_rights("roles", roles),
            disabled=False,
            created_at=moment(self._clock()),
            password_hash=self._hasher.hash(_valid("password", self._policy.check, password)),
        )

        def add(transaction: Transaction) -> None:
            if transaction.identities.user(user.username) is not None:
                raise Conflict(f"a user {user.username!a} exists already: choose another name")
            transaction.identities.add_user(user)
            transaction.append_change(Topic.USER, user.username, user.created_at)
            self._record(transaction, user.username, "created")

        change_in_time(self._feed, add)
        return user

    def list(self) -> Sequence[User]:
        """List all users, sorted by name, with the disabled ones."""
        if not self._feed.database.present():
            return []
        return self._feed.database.read(lambda transaction: transaction.identities.users())

    def get(self, username: str) -> User | None:
        """Find a user by name."""
        return self._find(name_of(username))

    def update(
        self,
        username: str,
        roles: str | Collection[str] | None = None,
        scopes: str | Collection[str] | None = None,
    ) -> None:
        """Change a user's roles and scopes, at once for API keys and new tokens.

        Args:
            username: the user's name.
            roles: the new roles, which replace the old ones; by default unchanged.
            scopes: the new scopes, which replace the old ones; by default unchanged.

        Raises:
            NotFound: the user does not exist.
            ValueError: a role or a scope is not valid.
        """
        changes: dict[str, Any] = {}
        if roles is not None:
            changes["roles"] = _rights("roles", roles)
        if scopes is not None:
            changes["scopes"] = _rights("scopes", scopes)
        self._change("rights", username, changes, revoke=False)

    def set_password(self, username: str, password: str) -> None:
        """Change a user's password, and revoke all the user's tokens and sessions.

        Raises:
            NotFound: the user does not exist.
            ValueError: the password is not valid.
        """
        hashed = self._hasher.hash(_valid("password", self._policy.check, password))
        self._change("password", username, {"password_hash": hashed}, revoke=True)

    def disable(self, username: str) -> None:
        """Disable a user: refuse the password and the API keys, and revoke all tokens and sessions.

        Raises:
            NotFound: the user does not exist.
        """
        self._change("disabled", username, {"disabled": True}, revoke=True)

    def enable(self, username: str) -> None:
        """Enable a disabled user; revoked tokens stay revoked.

        Raises:
            NotFound: the user does not exist.
        """
        self._change("enabled", username, {"disabled": False}, revoke=False)

    def delete(self, username: str) -> None:
        """Delete a user, and revoke all the user's tokens, sessions and API keys.

        What the audit trail says of the user stays. A later user of the same name gets none of it
        back.

        Raises:
            NotFound: the user does not exist.
            Conflict: the user owns stored credentials, which a later user of that name would see:
                delete them first.
        """
        name, now = name_of(username), moment(self._clock())
        if name is None or not self._feed.limit_time(self._feed.database.present):
            raise _not_found(username)

        def remove(transaction: Transaction) -> None:
            if transaction.identities.user(name) is None:
                raise _not_found(name)
            if count := transaction.credentials.count(name):
                raise Conflict(f"{name!a} owns {count} stored credentials: delete them first")
            revoke_subject(transaction, name, now)
            revoke_keys_of(transaction, self._trail, name, now)
            transaction.identities.delete_user(name)
            transaction.append_change(Topic.USER, name, now)
            self._record(transaction, name, "deleted")

        change_in_time(self._feed, remove, long=True)

    def verify_password(self, username: str, password: str) -> User | None:
        """Verify a name and password; return the user, or `None` if they are wrong.

        An unknown name and a disabled user take as long as a wrong password. This method does not
        throttle attempts: HTTP Basic and the REST API's login do.

        Raises:
            ServiceUnavailable: too many passwords are being verified.
            DatabaseUnavailable: the user cannot be read.
        """
        check_type(str, password=password)
        name, database = name_of(username), self._feed.database
        if database.local and not database.present():
            return None
        dummy, user = self._make_dummy_hash(), self._find(name)
        while True:
            right = self._hasher.verify(dummy if user is None else user.password_hash, password)
            if user is None or not right:
                return None
            # The password may have changed, or the user been disabled, during verification.
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
        """Upgrade a hash to the current parameters, or leave it to the next login if busy."""
        if self._hasher.is_current(user.password_hash):
            return
        with suppress(ServiceUnavailable):
            hashed = self._hasher.hash(password)
            with self._feed.database.write(patience=_PATIENCE) as transaction:
                transaction.identities.replace_hash(user.username, user.password_hash, hashed)

    def _change(self, what: str, username: str, changes: dict[str, Any], *, revoke: bool) -> None:
        name, now = name_of(username), moment(self._clock())
        if name is None or not self._feed.limit_time(self._feed.database.present):
            raise _not_found(username)

        def change(transaction: Transaction) -> None:
            if transaction.identities.user(name) is None:
                raise _not_found(name)
            if changes:
                transaction.identities.change_user(name, **changes)
            transaction.append_change(Topic.USER, name, now)
            if revoke:
                revoke_subject(transaction, name, now)
            self._record(transaction, name, what)

        change_in_time(self._feed, change)

    def _record(self, transaction: Transaction, username: str, change: str) -> None:
        event = self._trail.event(EventName.USER_CHANGED, target=username, change=change)
        self._trail.record_change(transaction, event)

    def _make_dummy_hash(self) -> str:
        """Make a hash to verify when the user does not exist, so that timing reveals nothing."""
        with self._lock:
            if self._dummy_hash is None:
                self._dummy_hash = self._hasher.hash(secrets.token_urlsafe(16))
            return self._dummy_hash


def _username(given: str) -> str:
    name = checked_name("a username", given)
    if ":" in name:
        raise ValueError("a username must not contain a colon (RFC 7617 §2)")
    return name


def _valid(field: str, check: Callable[[T], str], value: T) -> str:
    """Check a field of a user.

    Raises:
        InvalidUser: the field is not valid.
    """
    try:
        return check(value)
    except (TypeError, ValueError) as error:
        raise InvalidUser(field, str(error)) from None


def _rights(field: str, given: str | Collection[str]) -> frozenset[str]:
    try:
        return frozenset(names(field, given))
    except (TypeError, ValueError) as error:
        raise InvalidUser(field, str(error)) from None


def _not_found(name: object) -> NotFound:
    return NotFound(f"no user {str(name)[:64]!a} exists")
