"""Identities: wires up one app's authentication (tokens, users, API keys, schemes)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..audit.trail import AuditTrail
from ..ratelimit.store import LimitStore
from ..settings.models import BasicAuthSettings, SecuritySettings
from ..storage.feed import ChangeFeed
from ..storage.records import User
from .address_archive import AddressArchive
from .api_keys import ApiKeys
from .app_callbacks import AppCallbacks, LoadedIdentities
from .identity import Identity
from .known_addresses import KNOWN_FOR
from .lockout import Lockout
from .password_policy import PasswordPolicy
from .passwords import PasswordHasher
from .schemes.api_key import ApiKeyAuthenticator
from .schemes.app_scheme import AppScheme
from .schemes.authenticator import Authenticator
from .schemes.basic import BasicAuthenticator
from .schemes.bearer import BearerAuthenticator
from .schemes.cookie import CookieAuthenticator, SessionCookies
from .sign_in import ConfiguredUser, SignIn
from .tokens import Tokens
from .users import Users

logger = logging.getLogger("flask_m9m")


class Identities:
    """One app's authentication services.

    Args:
        settings: the app's security settings.
        callbacks: the app's own callbacks.
        feed: the change feed of the app's database.
        store: the rate-limit store that counts failed attempts.
        trail: the audit trail.
        clock: seconds since the epoch.
        secret: hashes clients' names, the same on all machines; empty if there is none.

    Attributes:
        tokens: issues, verifies and revokes tokens.
        users: creates and changes users.
        api_keys: creates and revokes API keys.
        cookies: writes the session's cookies.
        callbacks: the app's own callbacks.
        load: applies the app's identity loader.
        lockout: throttles failed attempts.
        sign_in: verifies a name and password; throttles attempts.
        authenticators: the enabled schemes, in the order of their challenges.
    """

    def __init__(
        self,
        settings: SecuritySettings,
        callbacks: AppCallbacks,
        feed: ChangeFeed,
        store: LimitStore,
        trail: AuditTrail,
        clock: Callable[[], float],
        secret: bytes = b"",
    ) -> None:
        hasher = PasswordHasher()
        self.tokens = Tokens(settings.jwt, feed, trail, clock)
        policy = PasswordPolicy(settings.users, callbacks)
        self.users = Users(feed, hasher, policy, trail, clock)
        self.api_keys = ApiKeys(settings.api_keys.prefix, feed, trail, clock)
        self.callbacks = callbacks
        self.load = LoadedIdentities(callbacks, clock)
        archive = AddressArchive(feed, secret, KNOWN_FOR, clock)
        self.lockout = Lockout(settings.lockout, store, clock, archive)
        verify = _password_verifier(settings.basic_auth, callbacks, self.users, hasher)
        self.sign_in = SignIn(verify, self.load, self.lockout, feed, clock=clock)
        switched_on: list[Authenticator] = []
        if self.tokens.enabled:
            switched_on.append(BearerAuthenticator(self.tokens))
        if settings.api_keys.enabled:
            switched_on.append(ApiKeyAuthenticator(settings.api_keys, feed, self.lockout, clock))
        if settings.basic_auth.enabled:
            switched_on.append(BasicAuthenticator(self.sign_in))
        callbacks.settled = True
        for scheme, (authenticate, ambient) in callbacks.authenticators.items():
            switched_on.append(AppScheme(scheme, authenticate, ambient=ambient))
        self.cookies = SessionCookies(settings.jwt, clock)
        if self.tokens.enabled and self.cookies.enabled:
            switched_on.append(CookieAuthenticator(self.tokens, self.cookies))
        self.authenticators = tuple(switched_on)
        self._feed = feed

    def is_ready(self) -> bool:
        """Tell whether the database answers, or will be created when it is first needed."""
        return self._feed.answers()


def _password_verifier(
    settings: BasicAuthSettings, callbacks: AppCallbacks, users: Users, hasher: PasswordHasher
) -> Callable[[str, str], User | Identity | bool | None]:
    """Make a function that tries the configured user, then the app or the users table."""
    is_configured = settings.enabled and settings.username is not None
    configured = ConfiguredUser(settings, hasher) if is_configured else None

    def verify(name: str, password: str) -> User | Identity | bool | None:
        if configured is not None and configured(name, password):
            return True
        try:
            return (callbacks.password_verifier or users.verify_password)(name, password)
        except Exception:
            if configured is None or not configured.has_name(name):
                raise
            # The configured user's password is wrong: the attempt counts, whatever else fails.
            logger.exception("basic_auth: another source of users failed for the configured name")
            return None

    return verify
