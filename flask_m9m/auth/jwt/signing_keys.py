"""JWT signing keys (HMAC), their key ids (`kid`), and the key ring for rotation.

A key's id is the first 8 hex digits of HKDF-SHA256(secret, no salt, info `flask-m9m jwt key id`):
it distinguishes keys and reveals nothing about the secret.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import InvalidKeyError

from ...settings.models import Algorithm
from ...settings.secrets import is_asymmetric_key, is_der

_HMAC = {
    Algorithm.HS256: HMACAlgorithm(HMACAlgorithm.SHA256),
    Algorithm.HS384: HMACAlgorithm(HMACAlgorithm.SHA384),
    Algorithm.HS512: HMACAlgorithm(HMACAlgorithm.SHA512),
}


class SigningKey:
    """A secret with the only algorithm that it is used for (RFC 8725 §3.1).

    Args:
        secret: at least as many bytes as the algorithm's hash (RFC 7518 §3.2).
        algorithm: `HS256`, `HS384` or `HS512`.
        kid: the key's id; by default derived from the secret.

    Raises:
        ValueError: the secret is too short or is a key of another kind, or the algorithm is not
            supported.
    """

    def __init__(
        self, secret: bytes, algorithm: str = Algorithm.HS256, kid: str | None = None
    ) -> None:
        self.algorithm = Algorithm(algorithm)
        if len(secret) < self.algorithm.secret_bytes:
            raise ValueError(
                f"a secret for {self.algorithm} must have at least {self.algorithm.secret_bytes} "
                f"bytes, found {len(secret)}"
            )
        if is_der(secret) or is_asymmetric_key(secret.decode("latin-1")):
            raise ValueError(
                "a secret must be random, found a key of another kind (PEM, SSH, JWK or DER), "
                "whose public part may be known"
            )
        self._hmac = _HMAC[self.algorithm]
        try:
            self._secret = self._hmac.prepare_key(secret)
        except InvalidKeyError as error:
            raise ValueError(str(error)) from None
        self.kid = kid or _key_id(secret)

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithm}, kid={self.kid!r})"

    def sign(self, message: bytes) -> bytes:
        """Sign a message."""
        return self._hmac.sign(message, self._secret)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Compare a signature with the message's, in constant time."""
        return self._hmac.verify(message, self._secret, signature)


class SigningKeyRing:
    """The accepted signing keys: the current key and previous ones, which only verify.

    Args:
        keys: the current key first.

    Raises:
        ValueError: there is no key, or two keys have the same id.
    """

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        if not keys:
            raise ValueError("a key ring needs at least one key")
        self._keys = tuple(keys)
        self._by_id = {key.kid: (key,) for key in keys}
        if len(self._by_id) != len(keys):
            raise ValueError("two keys of a key ring have the same id: remove the duplicate")

    @property
    def current(self) -> SigningKey:
        """The key that signs new tokens."""
        return self._keys[0]

    def candidates(self, kid: str | None) -> tuple[SigningKey, ...]:
        """Return the keys that a `kid` names; all keys if the token has no `kid`."""
        return self._keys if kid is None else self._by_id.get(kid, ())


def _key_id(secret: bytes) -> str:
    return HKDF(SHA256(), 4, salt=None, info=b"flask-m9m jwt key id").derive(secret).hex()
