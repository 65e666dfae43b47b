"""Tokens: issuing and verifying JWTs under a ring of keys."""

from .claims import ClaimRules
from .issuer import Issuer, new_jti
from .jws import inspect
from .keys import SigningKey, SigningKeyRing
from .verifier import Verifier

__all__ = ["ClaimRules", "Issuer", "SigningKey", "SigningKeyRing", "Verifier", "inspect", "new_jti"]
