from __future__ import annotations

import base64
import secrets
import string

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_m9m.credentials.encryption import aead
from flask_m9m.credentials.encryption.encryption_keys import EncryptionKey

from .conftest import Derived, nist_vectors
from .gcm import Side, opens_under_both
from .independent import aead_envelope, aead_octets, associated, derived, id_of

OCTETS = bytes(range(32))
SALT = bytes(range(32, 64))
KEY = EncryptionKey(OCTETS.hex())
RECORD = (b"r-1", b"apiKey", b"alice")
FROZEN = (
    "m9m:1:b6a31bd4:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj_WqMmuXU_q9cQVjFEaI623E"
    "VNtkDE9P8XNy9ZvNJjKQDirRN2W7OAjuTy6BtXiCVMnKVUGWu8"
)


def payload_of(envelope: str) -> str:
    return envelope.split(":")[3]


def payload(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def test_an_envelope_is_frozen_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    assert aead_envelope(OCTETS, SALT, b"secret", *RECORD) == FROZEN
    assert aead.unseal(KEY, payload_of(FROZEN), RECORD) == b"secret"
    monkeypatch.setattr(aead.os, "urandom", lambda size: SALT[:size])
    assert aead.seal(KEY, b"secret", RECORD) == FROZEN


def test_associated_data_is_length_prefixed_and_frozen() -> None:
    expected = (
        b"\0\0\0\5m9m:1"
        b"\0\0\0\x08" + id_of(OCTETS).encode() + b"\0\0\0\3r-1"
        b"\0\0\0\6apiKey"
        b"\0\0\0\5alice"
    )
    assert aead.associated_data(KEY.id, RECORD) == expected == associated(OCTETS, *RECORD)


@given(st.binary(max_size=300), st.lists(st.binary(max_size=20), max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_is_sealed_opens_and_an_independent_writer_agrees(
    plaintext: bytes, parts: list[bytes]
) -> None:
    envelope = aead.seal(KEY, plaintext, parts)
    assert aead.unseal(KEY, payload_of(envelope), parts) == plaintext
    salt = aead_octets(envelope)[:32]
    assert aead_envelope(OCTETS, salt, plaintext, *parts) == envelope


@pytest.mark.parametrize("plaintext", [b"", b"x" * 16, b"\0" * 17, "🔑".encode(), b"m" * 10**6])
def test_any_bytes_come_back(plaintext: bytes) -> None:
    assert aead.unseal(KEY, payload_of(aead.seal(KEY, plaintext, ())), ()) == plaintext


def test_every_envelope_has_a_salt_of_its_own() -> None:
    salts = {aead_octets(aead.seal(KEY, b"", ()))[:32] for _ in range(10_000)}
    assert len(salts) == 10_000


# --- the vectors of NIST


def test_every_vector_of_nist_for_encryption_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    met = 0
    for case in nist_vectors("ciphers/AES/GCM/gcmEncryptExtIV256.rsp"):
        if case["IVlen"] != 96 or case["Taglen"] != 128:
            continue
        met += 1
        monkeypatch.setattr(aead, "associated_data", lambda *_, aad=case["AAD"]: aad)
        key = Derived(case["Key"] + case["IV"] + bytes(32))
        envelope = aead.seal(key, case["PT"], ())
        assert aead_octets(envelope)[64:] == case["CT"] + case["Tag"]
        assert aead.unseal(key, payload_of(envelope), ()) == case["PT"]
    assert met == 375


def test_every_vector_of_nist_for_decryption_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = {True: 0, False: 0}
    for case in nist_vectors("ciphers/AES/GCM/gcmDecrypt256.rsp"):
        if case["IVlen"] != 96 or case["Taglen"] != 128:
            continue
        monkeypatch.setattr(aead, "associated_data", lambda *_, aad=case["AAD"]: aad)
        key = Derived(case["Key"] + case["IV"] + bytes(32))
        octets = bytes(64) + case["CT"] + case["Tag"]
        expected = None if "FAIL" in case else case["PT"]
        assert aead.unseal(key, payload(octets), ()) == expected
        judged["FAIL" in case] += 1
    assert judged == {False: 184, True: 191}


# --- what does not open


def test_no_payload_opens_with_a_bit_flipped() -> None:
    octets = aead_octets(FROZEN)
    for bit in range(len(octets) * 8):
        flipped = bytearray(octets)
        flipped[bit // 8] ^= 1 << bit % 8
        assert aead.unseal(KEY, payload(flipped), RECORD) is None


def test_no_payload_opens_that_is_cut_or_longer() -> None:
    octets = aead_octets(FROZEN)
    for length in range(len(octets)):
        assert aead.unseal(KEY, payload(octets[:length]), RECORD) is None
    text = payload_of(FROZEN)
    for length in range(len(text)):
        assert aead.unseal(KEY, text[:length], RECORD) is None
    assert aead.unseal(KEY, payload(octets + b"\0"), RECORD) is None


def test_a_payload_is_written_in_one_way_only() -> None:
    for plaintext in (b"secret", b"secret1", b"secret12"):  # 2, 0 and 4 unused bits
        text = payload_of(aead.seal(KEY, plaintext, RECORD))
        assert aead.unseal(KEY, text, RECORD) == plaintext
        alphabet = string.ascii_letters + string.digits + "-_"
        opened = [aead.unseal(KEY, text[:-1] + last, RECORD) for last in alphabet]
        assert opened.count(None) == 63
        middle = len(text) // 2
        for other in (
            text + "=",
            text + "==",
            text + "\n",
            " " + text,
            f"{text[:middle]}\n{text[middle:]}",
            f"{text[:middle]}!{text[middle:]}",
            text.translate(str.maketrans("-_", "+/")) + "=" * (-len(text) % 4),
            text + "é",
            "０" + text[1:],
            "\ud800",
        ):
            assert aead.unseal(KEY, other, RECORD) is None


def test_the_url_safe_alphabet_alone_is_read() -> None:
    text = payload_of(aead.seal(KEY, bytes(range(256)), ()))
    while "-" not in text or "_" not in text:
        text = payload_of(aead.seal(KEY, bytes(range(256)), ()))
    assert aead.unseal(KEY, text, ()) == bytes(range(256))
    assert aead.unseal(KEY, text.replace("-", "+"), ()) is None
    assert aead.unseal(KEY, text.replace("_", "/"), ()) is None


def test_no_boundary_of_associated_data_can_be_moved() -> None:
    text = payload_of(FROZEN)
    moved: list[tuple[bytes, ...]] = [
        (b"r-1a", b"piKey", b"alice"),
        (b"r-1", b"apiKeya", b"lice"),
        (b"r-1", b"apiKey"),
        (b"r-1", b"apiKey", b"alice", b""),
        (b"", b"r-1", b"apiKey", b"alice"),
        (b"r-2", b"apiKey", b"alice"),
        (b"r-1", b"apikey", b"alice"),
        (b"r-1", b"apiKey", b""),
    ]
    assert all(aead.unseal(KEY, text, parts) is None for parts in moved)


def test_ten_thousand_wrong_keys_open_nothing() -> None:
    text, octets = payload_of(FROZEN), aead_octets(FROZEN)
    for _ in range(5_000):
        assert aead.unseal(EncryptionKey(secrets.token_hex(32)), text, RECORD) is None
    for _ in range(5_000):  # past the commitment, by what it would be
        key = secrets.token_bytes(32)
        _, _, commitment = derived(key, SALT)
        committed = payload(SALT + commitment + octets[64:])
        assert aead.unseal(EncryptionKey(key.hex()), committed, RECORD) is None


def test_a_ciphertext_that_opens_under_two_keys_opens_under_one_at_most() -> None:
    keys = (OCTETS, OCTETS[::-1])
    sides, commitments = [], []
    for key in keys:
        once, nonce, commitment = derived(key, SALT)
        sides.append(Side(once, nonce, associated(key, *RECORD)))
        commitments.append(commitment)
    crafted = opens_under_both(*sides)
    for side in sides:  # without a commitment both would take it
        assert len(AESGCM(side.key).decrypt(side.nonce, crafted, side.associated)) == 32
    for commitment in (*commitments, bytes(32)):
        text = payload(SALT + commitment + crafted)
        opened = [aead.unseal(EncryptionKey(key.hex()), text, RECORD) for key in keys]
        expected = [commitment == own for own in commitments]
        assert [plaintext is not None for plaintext in opened] == expected


# --- sizes


def test_plaintexts_end_at_16_mib_and_parts_at_64_kib() -> None:
    longest, part = bytes(aead.LONGEST_PLAINTEXT), bytes(aead.LONGEST_PART)
    text = payload_of(aead.seal(KEY, longest, (part,)))
    assert len(text) <= aead.LONGEST_PAYLOAD
    assert aead.unseal(KEY, text, (part,)) == longest
    with pytest.raises(ValueError, match="at most 16777216 bytes, found 16777217"):
        aead.seal(KEY, longest + b"x", ())
    for refuse in (lambda p: aead.seal(KEY, b"", (p,)), lambda p: aead.unseal(KEY, text, (p,))):
        with pytest.raises(ValueError, match="at most 65536 bytes, found 65537"):
            refuse(part + b"x")


def test_a_payload_that_is_too_long_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aead, "urlsafe_b64decode", None)
    assert aead.unseal(KEY, "A" * (aead.LONGEST_PAYLOAD + 1), ()) is None
