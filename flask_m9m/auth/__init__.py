"""Authenticators: how a credential becomes an identity."""

from .authenticator import Authenticator, challenges
from .bearer import BearerAuthenticator
from .tokens import Tokens

__all__ = ["Authenticator", "BearerAuthenticator", "Tokens", "challenges"]
