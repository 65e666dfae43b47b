from __future__ import annotations

import hashlib
import hmac

import pytest

from flask_m9m.auth.jwt.signing_keys import SigningKey, SigningKeyRing

SECRET = bytes(range(64))


def test_the_id_of_a_key_is_hkdf_of_its_secret() -> None:
    """HKDF (RFC 5869) by hand: extract with a salt of zeros, expand one block."""
    extracted = hmac.digest(bytes(32), SECRET, "sha256")
    block = hmac.digest(extracted, b"flask-m9m jwt key id\x01", "sha256")
    assert SigningKey(SECRET).kid == block[:4].hex() == "cc66bc40"


def test_the_id_tells_nothing_else_and_the_repr_no_secret() -> None:
    key = SigningKey(b"s" * 32)
    assert hashlib.sha256(b"s" * 32).hexdigest()[:8] != key.kid
    assert repr(key) == f"SigningKey(HS256, kid='{key.kid}')"


@pytest.mark.parametrize(("algorithm", "shortest"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_as_long_as_its_hash(algorithm: str, shortest: int) -> None:
    assert SigningKey(bytes(range(shortest)), algorithm).algorithm == algorithm
    with pytest.raises(ValueError, match=str(shortest)):
        SigningKey(bytes(range(shortest - 1)), algorithm)


@pytest.mark.parametrize("algorithm", ["none", "RS256", "hs256", ""])
def test_no_other_algorithm_is_offered(algorithm: str) -> None:
    with pytest.raises(ValueError):
        SigningKey(SECRET, algorithm)


def test_a_ring_signs_with_its_first_key_and_finds_by_id() -> None:
    keys = [SigningKey(bytes([n]) * 32) for n in range(3)]
    ring = SigningKeyRing(keys)
    assert ring.current is keys[0]
    assert ring.candidates(keys[2].kid) == (keys[2],)
    assert ring.candidates(None) == tuple(keys)
    assert ring.candidates("unknown") == ()


def test_a_ring_is_neither_empty_nor_ambiguous() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SigningKeyRing([])
    with pytest.raises(ValueError, match="same id"):
        SigningKeyRing([SigningKey(SECRET), SigningKey(SECRET)])
