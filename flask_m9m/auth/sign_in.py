"""Sign-in with a name and a password, for HTTP Basic and the login of the REST API."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from werkzeug.exceptions import HTTPException

from ..errors import DatabaseUnavailable, InvalidCredentials
from ..http.address import Client
from ..processes.bounded_cache import BoundedCache
from ..processes.forking import fork_safe_lock, watch
from ..settings.models import BasicAuthSettings
from ..storage.feed import ChangeFeed, Topic
from ..storage.records import User
from .identity import Identity
from .lockout import Lockout
from .names import normalize
from .passwords import PasswordHasher
from .revocations import revocation_name, version_of

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

PasswordVerifier = Callable[[str, str], Identity | bool | None]
"""Verify a name and a password, both in NFC: return an identity, `True`, or `None` or `False`."""

_Verified = tuple[Identity, bool]
"""The identity, and whether it is a user of the users table."""

_LIFETIME = 60.0  # seconds
_CAPACITY = 1_024
_PATIENCE = 2.0  # seconds that a request waits for another one's verification


class SignedIn(NamedTuple):
    """The result of a sign-in.

    Attributes:
        identity: the verified identity.
        is_user: whether it is a user of the users table, which has the user's current rights.
        loaded: the identity from the app's `identity_loader`.
        version: of a login, the version of the subject's tokens, which did not change while the
            password was verified.
    """

    identity: Identity
    is_user: bool
    loaded: Identity
    version: int | None = None


class SignIn:
    """Verifies a name and password; throttles attempts.

    Args:
        verify: verifies a name and a password.
        load: applies the app's identity loader.
        lockout: throttles failed attempts.
        feed: the change feed, which reports changed users.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        verify: Callable[[str, str], User | Identity | bool | None],
        load: Callable[[Identity], Identity],
        lockout: Lockout,
        feed: ChangeFeed,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._verify = verify
        self._load = load
        self._lockout = lockout
        self._feed = feed
        self._verified = VerifiedPasswords(clock)
        feed.subscribe(self._verified)

    def __call__(
        self, name: str, password: str, client: Client, *, login: bool = False
    ) -> SignedIn:
        """Verify a name and password.

        Args:
            name: the name in NFC, without control characters.
            password: the password without control characters, in any normal form.
            client: the client that sent them.
            login: whether a session begins: then no cached verification counts, which another
                process may have made out of date.

        Raises:
            InvalidCredentials: they are wrong, or the app rejects the identity; or at a login, the
                subject's tokens were revoked while the password was verified.
            TooManyAttempts: too many attempts failed before.
            ServiceUnavailable: too many passwords are being verified.
        """
        # Cached verifications are throttled too: otherwise a locked-out client could still
        # recognise a correct guess.
        with self._verified.turn(name, password), self._lockout.attempt(name, client):
            password = normalize(password)  # a long one takes time: the lockout comes first
            position = self._newest_change() if login else 0
            found = None if login else self._find_cached(name, password)
            if found is None:
                found = self._verify_and_cache(name, password)
        version = self._version_since(position, found[0].subject) if login else None
        # The app's loader may be slow: no other request waits for it, or finds its token taken.
        try:
            return SignedIn(*found, self._load(found[0]), version)
        except InvalidCredentials:
            self._lockout.count_failure(name, client)
            raise

    def _newest_change(self) -> int:
        """Return the id of the feed's newest change; 0 if there is none."""
        if self._feed.has_no_database() and not self._feed.database.is_there():
            return 0
        newest = self._feed.ask(lambda transaction: transaction.newest_change())
        return 0 if newest is None else newest.id

    def _version_since(self, position: int, subject: str) -> int:
        """Find the version of a subject's tokens.

        Raises:
            InvalidCredentials: it changed after the feed's change `position`, so that the password
                may have been verified before that.
        """
        if self._feed.has_no_database() and not self._feed.database.is_there():
            return 0
        name = revocation_name("sub", subject)

        def query(transaction: Transaction) -> int | None:
            if transaction.changed_since(position, Topic.REVOCATION, name):
                return None
            return version_of(transaction, subject)

        version = self._feed.ask(query)
        if version is None:
            raise InvalidCredentials
        return version

    def _find_cached(self, name: str, password: str) -> _Verified | None:
        try:
            self._feed.catch_up()
        except DatabaseUnavailable:
            return None  # the configured user needs no database
        return self._verified.find(name, password)

    def _verify_and_cache(self, name: str, password: str) -> _Verified:
        ticket = self._feed.fill_ticket()
        found = self._call_verifier(name, password)
        self._feed.keep(ticket, lambda: self._verified.keep(name, password, found))
        return found

    def _call_verifier(self, name: str, password: str) -> _Verified:
        try:
            answer = self._verify(name, password)
        except HTTPException as error:
            if error.code is not None and error.code < 500:
                raise InvalidCredentials from None  # any 4xx of the app means wrong credentials
            raise
        if answer is True:
            return Identity(name, "basic"), False
        if isinstance(answer, User):
            return Identity(answer.username, "basic", answer.scopes, answer.roles), True
        if isinstance(answer, Identity):
            return replace(answer, scheme="basic"), False
        raise InvalidCredentials


class ConfiguredUser:
    """The user of `security.basic_auth`, who needs no database.

    A wrong name takes as long to verify as a wrong password.

    Args:
        settings: the username, and the password or its hash.
        hasher: hashes and verifies passwords.
    """

    def __init__(self, settings: BasicAuthSettings, hasher: PasswordHasher) -> None:
        assert settings.username is not None  # noqa: S101  # the settings were checked
        self._name = normalize(settings.username).encode()
        self._settings = settings
        self._hasher = hasher
        self._hashed: str | None = None
        self._lock = fork_safe_lock()

    def __call__(self, name: str, password: str) -> bool:
        """Tell whether a name and password are the configured ones."""
        right = self._hasher.verify(self._hash(), password)
        return self.has_name(name) and right

    def has_name(self, name: str) -> bool:
        """Tell whether a name is the configured one."""
        return hmac.compare_digest(name.encode(), self._name)

    def _hash(self) -> str:
        with self._lock:
            if self._hashed is None:
                given, hashed = self._settings.password, self._settings.password_hash
                if hashed is not None:
                    self._hashed = hashed.get_secret_value()
                elif given is not None:
                    self._hashed = self._hasher.hash(given.get_secret_value())
                else:
                    raise InvalidCredentials
            return self._hashed


class _Turn:
    """The turn of requests with the same name and password."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class VerifiedPasswords:
    """Caches successful verifications for a minute, under an HMAC with a key of this process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._known: BoundedCache[bytes, tuple[float, str, _Verified]] = BoundedCache(_CAPACITY)
        self._lock = fork_safe_lock()
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """Replace the turns, which threads of the parent process may have."""
        self._turns: dict[bytes, _Turn] = {}

    @contextmanager
    def turn(self, name: str, password: str) -> Iterator[None]:
        """Serialize verifications of a name and password, so that the others use the cached result.

        A request that has waited for two seconds goes on: the app's own verifier may be slow, and
        limits itself; the passwords that are hashed here have a limit of their own.
        """
        digest = self._digest(name, password)
        with self._lock:
            turn = self._turns.setdefault(digest, _Turn())
            turn.users += 1
        held = turn.lock.acquire(timeout=_PATIENCE)
        try:
            yield
        finally:
            if held:
                turn.lock.release()
            with self._lock:
                turn.users -= 1
                if turn.users == 0:
                    self._turns.pop(digest, None)

    def find(self, name: str, password: str) -> _Verified | None:
        """Find a cached verification that is still fresh."""
        known = self._known.find(self._digest(name, password))
        if known is None or not 0 <= self._clock() - known[0] < _LIFETIME:
            return None
        return known[2]

    def keep(self, name: str, password: str, found: _Verified) -> None:
        """Cache a successful verification."""
        self._known.keep(self._digest(name, password), (self._clock(), name, found))

    def drop(self, topic: str, name: str) -> None:
        """Drop the verifications of a changed user, or of a subject whose tokens were revoked."""
        if topic == Topic.USER:
            self._known.drop(lambda known: name in (known[1], known[2][0].subject))
        elif topic == Topic.REVOCATION:
            self._known.drop(
                lambda known: (
                    name in {revocation_name("sub", who) for who in (known[1], known[2][0].subject)}
                )
            )

    def clear(self) -> None:
        """Drop all verifications."""
        self._known.clear()

    def _digest(self, name: str, password: str) -> bytes:
        # A name has no NUL, so that two different pairs never give the same text.
        return hmac.digest(self._key, f"{name}\0{password}".encode(), "sha256")
