"""Signing in by a name and a password, under HTTP Basic and by the REST API alike."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple

from werkzeug.exceptions import HTTPException

from ..crypto import PasswordHasher, in_turn
from ..errors import DatabaseUnavailable, InvalidCredentials
from ..http.address import Client
from ..identity import Identity
from ..processes.forking import fork_safe_lock, watch
from ..settings import BasicAuthSettings
from ..storage import ChangeFeed, Topic, User
from ..text import normalize
from .lockout import Lockout

PasswordVerifier = Callable[[str, str], Identity | bool | None]
"""Given a name and a password, both in NFC, return who it is, or `True`, or nothing."""

_Found = tuple[Identity, bool]
"""Who it is, and whether that is a user of the table."""

_REMEMBERED_SECONDS = 60.0
_REMEMBERED = 1_024


class SignedIn(NamedTuple):
    """Who signed in.

    Attributes:
        identity: who it is.
        is_user: whether that is a user of the table, whose rights are read there.
        loaded: who it is as the app enriches it.
    """

    identity: Identity
    is_user: bool
    loaded: Identity


class SignIn:
    """Tells whose name and password these are, and throttles guesses.

    Args:
        verify: tells who a name and a password are.
        load: has the app enrich who it is, or refuse it.
        lockout: throttles guesses.
        feed: says when what is remembered of a user no longer counts.
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

    def __call__(self, name: str, password: str, client: Client) -> SignedIn:
        """Return who it is.

        Args:
            name: in NFC, without control characters.
            password: in NFC, likewise.
            client: who sent them.

        Raises:
            InvalidCredentials: they are wrong, or the app does not want them.
            TooManyAttempts: too many were wrong before.
            ServiceUnavailable: too many are being verified.
        """
        # What is remembered counts as an attempt like any other: else a right guess would pass
        # where a wrong one is refused, and guessing would be free.
        with self._verified.turn(name, password), self._lockout.attempt(name, client):
            found = self._remembered(name, password) or self._verified_now(name, password)
            return SignedIn(*found, self._load(found[0]))

    def _remembered(self, name: str, password: str) -> _Found | None:
        try:
            self._feed.catch_up()
        except DatabaseUnavailable:
            return None  # the configured user needs none
        return self._verified.find(name, password)

    def _verified_now(self, name: str, password: str) -> _Found:
        noted = self._feed.noted()
        found = self._ask(name, password)
        self._feed.keep(noted, lambda: self._verified.keep(name, password, found))
        return found

    def _ask(self, name: str, password: str) -> _Found:
        try:
            answer = self._verify(name, password)
        except HTTPException as error:
            if error.code is not None and error.code < 500:
                raise InvalidCredentials from None  # however the app says that it is wrong
            raise
        if answer is True:
            return Identity(name, "basic"), False
        if isinstance(answer, User):
            return Identity(answer.username, "basic", answer.scopes, answer.roles), True
        if isinstance(answer, Identity):
            return replace(answer, scheme="basic"), False
        raise InvalidCredentials


class ConfiguredUser:
    """The user of `security.basic_auth`, known without a database.

    A name that is not its own costs what a wrong password costs.

    Args:
        settings: with a name, and a password or the hash of one.
        hasher: hashes and verifies.
    """

    def __init__(self, settings: BasicAuthSettings, hasher: PasswordHasher) -> None:
        assert settings.username is not None  # noqa: S101  # the settings were checked
        self._name = normalize(settings.username).encode()
        self._settings = settings
        self._hasher = hasher
        self._hashed: str | None = None
        self._lock = fork_safe_lock()

    def __call__(self, name: str, password: str) -> bool:
        """Tell whether these are its name and password."""
        right = self._hasher.verify(self._hash(), password)
        return hmac.compare_digest(name.encode(), self._name) and right

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


class VerifiedPasswords:
    """Remembers good verifications for a minute, under a hash keyed in this process alone."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[float, str, _Found]] = OrderedDict()
        self._lock = fork_safe_lock()
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """Leave the parent's turns to the parent."""
        self._turns = [threading.Lock() for _ in range(64)]

    def turn(self, name: str, password: str) -> AbstractContextManager[None]:
        """Let only one verify this name and password; the others wait for what it finds.

        Raises:
            ServiceUnavailable: that takes longer than two seconds.
        """
        turn = self._turns[self._digest(name, password)[0] % len(self._turns)]
        return in_turn(turn, patience=2.0)

    def find(self, name: str, password: str) -> _Found | None:
        """Return who it was when it was last verified."""
        known = self._known.get(self._digest(name, password))
        if known is None or not 0 <= self._clock() - known[0] < _REMEMBERED_SECONDS:
            return None
        return known[2]

    def keep(self, name: str, password: str, found: _Found) -> None:
        """Remember a good verification."""
        with self._lock:
            digest = self._digest(name, password)
            self._known[digest] = (self._clock(), name, found)
            self._known.move_to_end(digest)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def drop(self, topic: str, name: str) -> None:
        """Forget a user who changed."""
        if topic == Topic.USER:
            with self._lock:
                for digest, (_, typed, (identity, _)) in list(self._known.items()):
                    if name in (typed, identity.subject):
                        del self._known[digest]

    def clear(self) -> None:
        """Forget everybody."""
        with self._lock:
            self._known.clear()

    def _digest(self, name: str, password: str) -> bytes:
        # A name has no control character, so that no two pairs are one text.
        return hmac.digest(self._key, f"{name}\0{password}".encode(), "sha256")
