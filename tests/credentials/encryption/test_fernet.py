from __future__ import annotations

import base64
import json
import secrets
import string

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_m9m.credentials.encryption import aead, fernet
from flask_m9m.credentials.encryption.encryption_keys import EncryptionKey

from .conftest import Derived, cryptography_vectors
from .independent import associated, fernet_envelope, fernet_key, fernet_token

OCTETS = bytes(range(32))
KEY = EncryptionKey(OCTETS.hex())
RECORD = (b"r-1", b"apiKey", b"alice")
NO_TTL = {"expired TTL", "far-future TS (unacceptable clock skew)"}
FROZEN = (
    "m9m:f1:b6a31bd4:gAAAAABlU_EAAAECAwQFBgcICQoLDA0OD9hvTom8wB2qHkwBSBwSoEJ2bGLTnHXx"
    "NgsnuChCkZuk5ru9iqFpBCI8VHIRg4wflch2pE3dSoOjWa-hoKEHyQW8DhY8kv26EkkKOU6BHEUOGIOz"
    "aClx_Gsm6E60sXzaJA=="
)


def token_of(envelope: str) -> str:
    return envelope.split(":")[3]


def test_an_envelope_is_frozen_byte_for_byte() -> None:
    iv = bytes(range(16))
    assert fernet_envelope(OCTETS, 1_700_000_000, iv, b"secret", *RECORD) == FROZEN
    assert fernet.unseal(KEY, token_of(FROZEN), RECORD) == b"secret"


@given(st.binary(max_size=300), st.lists(st.binary(max_size=20), max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_is_sealed_opens_and_an_independent_writer_agrees(
    plaintext: bytes, parts: list[bytes]
) -> None:
    envelope = fernet.seal(KEY, plaintext, parts)
    assert fernet.unseal(KEY, token_of(envelope), parts) == plaintext
    octets = base64.urlsafe_b64decode(token_of(envelope))
    time, iv = int.from_bytes(octets[1:9], "big"), octets[9:25]
    assert fernet_envelope(OCTETS, time, iv, plaintext, *parts) == envelope


def test_any_program_that_knows_fernet_opens_a_token_with_the_derived_key() -> None:
    token = token_of(fernet.seal(KEY, b"secret", RECORD))
    opened = Fernet(base64.urlsafe_b64encode(fernet_key(OCTETS))).decrypt(token)
    bound = associated(OCTETS, *RECORD)
    assert opened == len(bound).to_bytes(4, "big") + bound + b"secret"


# --- the vectors of the specification


@pytest.mark.parametrize("name", ["generate", "verify"])
def test_the_specifications_tokens_open(name: str) -> None:
    for case in json.loads(cryptography_vectors(f"fernet/{name}.json")):
        key = Derived(base64.urlsafe_b64decode(case["secret"]))
        assert fernet._open(fernet._fernet(key), case["token"]) == case["src"].encode()


def test_the_specifications_invalid_tokens_do_not_open_whatever_their_age() -> None:
    opened = set()
    for case in json.loads(cryptography_vectors("fernet/invalid.json")):
        key = Derived(base64.urlsafe_b64decode(case["secret"]))
        if fernet._open(fernet._fernet(key), case["token"]) is not None:
            opened.add(case["desc"])
    assert opened == NO_TTL


# --- what does not open


def test_no_token_opens_with_a_bit_flipped() -> None:
    octets = base64.urlsafe_b64decode(token_of(FROZEN))
    for bit in range(len(octets) * 8):
        flipped = bytearray(octets)
        flipped[bit // 8] ^= 1 << bit % 8
        token = base64.urlsafe_b64encode(flipped).decode()
        assert fernet.unseal(KEY, token, RECORD) is None


@pytest.mark.parametrize("size", [6, 22, 38])
def test_a_token_is_written_in_one_way_only(size: int) -> None:
    text = token_of(fernet.seal(KEY, b"x" * size, RECORD))
    assert fernet.unseal(KEY, text, RECORD) == b"x" * size
    bare, padding = text.rstrip("="), "=" * text.count("=")
    alphabet = string.ascii_letters + string.digits + "-_"
    opened = [fernet.unseal(KEY, bare[:-1] + last + padding, RECORD) for last in alphabet]
    assert opened.count(None) == 63
    for other in (text + "=", text + "\n", " " + text, f"{text[:9]}\n{text[9:]}", text + "é"):
        assert fernet.unseal(KEY, other, RECORD) is None
    if padding:
        assert fernet.unseal(KEY, bare, RECORD) is None
    for length in range(len(text)):
        assert fernet.unseal(KEY, text[:length], RECORD) is None


def test_a_token_without_or_with_other_associated_data_does_not_open() -> None:
    key, iv = fernet_key(OCTETS), bytes(16)
    bound = associated(OCTETS, *RECORD)
    for plaintext in (
        b"",
        b"secret",
        bound + b"secret",
        len(bound).to_bytes(4, "little") + bound,
        (len(bound) + 1).to_bytes(4, "big") + bound + b"secret",
    ):
        assert fernet.unseal(KEY, fernet_token(key, 0, iv, plaintext), RECORD) is None
    for parts in (RECORD[:2], (*RECORD, b""), (b"r-1a", b"piKey", b"alice"), ()):
        assert fernet.unseal(KEY, token_of(FROZEN), parts) is None


def test_a_thousand_wrong_keys_open_nothing() -> None:
    for _ in range(1_000):
        key = EncryptionKey(secrets.token_hex(32))
        assert fernet.unseal(key, token_of(FROZEN), RECORD) is None


# --- sizes


def test_sizes_end_where_those_of_the_other_cipher_do(monkeypatch: pytest.MonkeyPatch) -> None:
    longest, part = bytes(aead.LONGEST_PLAINTEXT), bytes(aead.LONGEST_PART)
    text = token_of(fernet.seal(KEY, longest, (part,) * 4))
    assert len(text) <= aead.LONGEST_PAYLOAD
    assert fernet.unseal(KEY, text, (part,) * 4) == longest
    with pytest.raises(ValueError, match="at most 16777216 bytes, found 16777217"):
        fernet.seal(KEY, longest + b"x", ())
    for refuse in (lambda p: fernet.seal(KEY, b"", (p,)), lambda p: fernet.unseal(KEY, "", (p,))):
        with pytest.raises(ValueError, match="at most 65536 bytes, found 65537"):
            refuse(part + b"x")
    monkeypatch.setattr(fernet, "urlsafe_b64decode", None)
    assert fernet.unseal(KEY, "A" * (aead.LONGEST_PAYLOAD + 1), ()) is None
