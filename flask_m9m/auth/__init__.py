"""Authenticators: how a credential becomes an identity."""

from __future__ import annotations

from collections.abc import Callable

from ..crypto import PasswordHasher
from ..errors import Problem, SettingsError
from ..identity import Identity
from ..ratelimit import LimitStore
from ..settings import BasicAuthSettings, SecuritySettings
from .authenticator import Authenticator, challenges
from .basic import BasicAuthenticator, ConfiguredUser, PasswordVerifier
from .bearer import BearerAuthenticator
from .custom import BUILT_IN, CustomAuthenticator
from .declared import Declared, IdentityLoader, LoadedIdentities
from .lockout import Lockout
from .tokens import Tokens

__all__ = [
    "BUILT_IN",
    "Authenticator",
    "Declared",
    "IdentityLoader",
    "LoadedIdentities",
    "PasswordVerifier",
    "Tokens",
    "authenticators",
    "challenges",
]


def authenticators(
    settings: SecuritySettings,
    declared: Declared,
    load: LoadedIdentities,
    tokens: Tokens,
    store: LimitStore,
    clock: Callable[[], float],
) -> tuple[Authenticator, ...]:
    """Return the schemes that are switched on, in the order of their challenges.

    Raises:
        SettingsError: one is switched on that nobody could use.
    """
    switched_on: list[Authenticator] = []
    if tokens.verifier is not None:
        switched_on.append(BearerAuthenticator(tokens.verifier))
    if settings.basic_auth.enabled:
        verify = _password_verifier(settings.basic_auth, declared)
        lockout = Lockout(settings.lockout, store, clock)
        switched_on.append(BasicAuthenticator(verify, load, lockout, clock=clock))
    for scheme, (authenticate, ambient) in declared.authenticators.items():
        switched_on.append(CustomAuthenticator(scheme, authenticate, ambient=ambient))
    return tuple(switched_on)


def _password_verifier(settings: BasicAuthSettings, declared: Declared) -> PasswordVerifier:
    """Return what asks the configured user first and then the app."""
    configured = ConfiguredUser(settings, PasswordHasher()) if settings.username else None
    if configured is None and declared.password_verifier is None:
        accepted = "set security.basic_auth.username, or mark a function @m9m.password_verifier"
        raise SettingsError([Problem("security.basic_auth.enabled", "true, of nobody", accepted)])

    def verify(name: str, password: str) -> Identity | bool | None:
        if configured is not None and configured(name, password):
            return True
        app = declared.password_verifier
        return None if app is None else app(name, password)

    return verify
