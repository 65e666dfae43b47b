"""Signing keys and rings of them.

A key's id is the first 8 hex digits of HKDF-SHA256(secret, no salt, info `flask-m9m jwt key id`):
it tells keys apart, and nothing about the secret.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import InvalidKeyError

from ..settings import Algorithm, is_asymmetric_key, is_der

_HMAC = {
    Algorithm.HS256: HMACAlgorithm(HMACAlgorithm.SHA256),
    Algorithm.HS384: HMACAlgorithm(HMACAlgorithm.SHA384),
    Algorithm.HS512: HMACAlgorithm(HMACAlgorithm.SHA512),
}


class SigningKey:
    """A secret with the one algorithm that it is used for (RFC 8725 §3.1).

    Args:
        secret: at least as many bytes as the algorithm's hash (RFC 7518 §3.2).
        algorithm: `HS256`, `HS384` or `HS512`.
        kid: its id; left out, derived from the secret.

    Raises:
        ValueError: the secret is too short, is a key of another kind, or the algorithm is none
            of these.
    """

    def __init__(
        self, secret: bytes, algorithm: str = Algorithm.HS256, kid: str | None = None
    ) -> None:
        self.algorithm = Algorithm(algorithm)
        if len(secret) < self.algorithm.secret_bytes:
            raise ValueError(
                f"a secret for {self.algorithm} has at least {self.algorithm.secret_bytes} bytes"
            )
        if is_der(secret) or is_asymmetric_key(secret.decode("latin-1")):
            raise ValueError("a key of another kind, whose public half anybody may know")
        self._hmac = _HMAC[self.algorithm]
        try:
            self._secret = self._hmac.prepare_key(secret)
        except InvalidKeyError as error:
            raise ValueError(str(error)) from None
        self.kid = kid or _key_id(secret)

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithm}, kid={self.kid!r})"

    def sign(self, message: bytes) -> bytes:
        """Return the message's signature."""
        return self._hmac.sign(message, self._secret)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Tell, in constant time, whether this key made the signature."""
        return self._hmac.verify(message, self._secret, signature)


class SigningKeyRing:
    """The keys that are accepted, the one that signs first.

    Args:
        keys: the current one, then previous ones.

    Raises:
        ValueError: there is none, or two have one id.
    """

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        if not keys:
            raise ValueError("a key ring holds at least one key")
        self._keys = tuple(keys)
        self._by_id = {key.kid: (key,) for key in keys}
        if len(self._by_id) != len(keys):
            raise ValueError("two keys of a ring have one id")

    @property
    def current(self) -> SigningKey:
        """The key that signs."""
        return self._keys[0]

    def candidates(self, kid: str | None) -> tuple[SigningKey, ...]:
        """Return the keys that may have signed a token: all of them where it names none."""
        return self._keys if kid is None else self._by_id.get(kid, ())


def _key_id(secret: bytes) -> str:
    return HKDF(SHA256(), 4, salt=None, info=b"flask-m9m jwt key id").derive(secret).hex()
