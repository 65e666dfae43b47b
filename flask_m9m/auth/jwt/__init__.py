"""JSON Web Tokens: signing keys, issuing and verification."""

from .claims import ClaimRules
from .issuer import Issuer, new_jti
from .jws import inspect
from .signing_keys import SigningKey, SigningKeyRing
from .verifier import Verifier

__all__ = ["ClaimRules", "Issuer", "SigningKey", "SigningKeyRing", "Verifier", "inspect", "new_jti"]
