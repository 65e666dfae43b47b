"""Authentication: schemes, tokens, sessions, API keys, users, sign-in, lockout and CSRF."""

from __future__ import annotations

from .api_keys import ApiKeys
from .app_callbacks import AppCallbacks, CallbackDecorators, IdentityLoader, LoadedIdentities
from .identities import Identities
from .schemes.app_scheme import BUILT_IN
from .schemes.authenticator import Authenticator, challenges
from .schemes.cookie import ACCESS, REFRESH, cookie_of
from .sessions import TokenPair
from .sign_in import PasswordVerifier
from .tokens import Tokens
from .users import Users

__all__ = [
    "ACCESS",
    "BUILT_IN",
    "REFRESH",
    "ApiKeys",
    "AppCallbacks",
    "Authenticator",
    "CallbackDecorators",
    "Identities",
    "IdentityLoader",
    "LoadedIdentities",
    "PasswordVerifier",
    "TokenPair",
    "Tokens",
    "Users",
    "challenges",
    "cookie_of",
]
