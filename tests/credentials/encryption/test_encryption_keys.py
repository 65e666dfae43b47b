from __future__ import annotations

import base64
import copy
import hashlib
import secrets
import threading
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from flask_m9m.credentials.encryption import encryption_keys
from flask_m9m.credentials.encryption.encryption_keys import EncryptionKey, EncryptionKeyRing
from flask_m9m.errors import SettingsError

from .independent import everything_in, hkdf, id_of, spellings

OCTETS = bytes(range(32))
TEXT = "any other text of 32 characters."
SAME_ID = (  # SHA-256 of `flask-m9m collision 38173` and of `… 63635`
    "df2e1244404179098452b78aad0b63a03047d8bc6257459943755b0dcbef057f",
    "47ce318da2c534d540b384d5db6b9522c0ac0f4e879bea7932b5fe33be55b5d4",
)


def key(octets: bytes) -> EncryptionKey:
    return EncryptionKey(octets.hex())


@pytest.fixture
def stretched(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The texts that were stretched, which costs nothing here."""
    texts: list[bytes] = []

    def scrypt(text: bytes, **parameters: Any) -> bytes:
        texts.append(text)
        return hashlib.sha256(text).digest()

    monkeypatch.setattr(encryption_keys.hashlib, "scrypt", scrypt)
    return texts


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(OCTETS).decode(),
        base64.b64encode(OCTETS).decode().rstrip("="),
        OCTETS.hex(),
        OCTETS.hex().upper(),
    ],
)
def test_base64_and_hex_are_one_key(text: str) -> None:
    assert EncryptionKey(text).derive(b"x", 99) == hkdf(OCTETS, b"", b"x", 99)
    assert EncryptionKey(text).is_stretched


def test_a_keys_id_is_derived_and_frozen() -> None:
    assert key(OCTETS).id == id_of(OCTETS) == "b6a31bd4"


def test_any_other_text_is_stretched_by_scrypt_of_rfc_7914() -> None:
    salt = b"flask-m9m credential key"
    octets = Scrypt(salt, 32, n=131_072, r=8, p=1).derive(TEXT.encode())
    assert octets.hex() == "f59b96b8d1f9d79e12d3e639c721b6c38a6aadac5c56a44ec1a3727d0da753ca"
    text = EncryptionKey(TEXT)
    assert not text.is_stretched
    assert text.id == id_of(octets) == "2713db8e"
    assert text.is_stretched


@pytest.mark.parametrize("text", ["", "x", "é" * 31, "A" * 31, OCTETS.hex()[:-33]])
def test_shorter_texts_are_no_key_and_the_error_names_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64 of 32 bytes .* 64 hex digits, or at least 32"):
        EncryptionKey(text)


@pytest.mark.usefixtures("stretched")
def test_what_is_not_quite_base64_or_hex_is_text() -> None:
    encoded = base64.b64encode(OCTETS).decode()
    for text in (f"{encoded}\n", f" {encoded}", f"{encoded}=", encoded[:-2], OCTETS.hex()[:-1]):
        assert not EncryptionKey(text).is_stretched
    for text in ("é" * 32, "\udcff" * 32, "\x00" * 32):
        assert len(EncryptionKey(text).id) == 8


def test_a_text_is_stretched_once_and_not_before_it_is_needed(stretched: list[bytes]) -> None:
    text = EncryptionKey(TEXT)
    ring = EncryptionKeyRing([key(OCTETS), text])
    assert stretched == []
    for _ in range(2):
        assert ring.find("00000000") is None
        assert ring.find(text.id) is text
    assert stretched == [TEXT.encode()]


def test_two_threads_that_need_a_text_at_once_stretch_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text, arrived, texts = EncryptionKey(TEXT), threading.Semaphore(0), []
    lock = threading.Lock()

    class Door:
        def __enter__(self) -> None:
            arrived.release()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    def scrypt(text: bytes, **parameters: Any) -> bytes:
        texts.append(text)
        for _ in range(2):  # nobody is done before both threads wait
            assert arrived.acquire(timeout=10)
        return bytes(32)

    monkeypatch.setattr(encryption_keys.hashlib, "scrypt", scrypt)
    text._lock = Door()  # type: ignore[assignment]
    threads = [threading.Thread(target=text.derive, args=(b"x", 32)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [TEXT.encode()]


def test_a_ring_finds_a_key_by_its_id_alone() -> None:
    first, second = key(OCTETS), key(OCTETS[::-1])
    ring = EncryptionKeyRing([first, second])
    assert ring.primary is first
    assert ring.ids == (first.id, second.id)
    assert ring.find(second.id) is second
    for unknown in ("", "00000000", first.id.upper(), first.id + "0", f" {first.id}"):
        assert ring.find(unknown) is None
    with pytest.raises(ValueError, match="at least one key"):
        EncryptionKeyRing([])


def test_two_keys_of_one_id_make_no_ring() -> None:
    one, other = (EncryptionKey(text) for text in SAME_ID)
    assert one.id == other.id == "8f82a629"
    assert one.derive(b"x", 32) != other.derive(b"x", 32)
    for same in ([one, other], [one, one], [key(OCTETS), one, other]):
        with pytest.raises(SettingsError, match="two keys share an id; list each key once"):
            EncryptionKeyRing(same)


@pytest.mark.usefixtures("stretched")
def test_two_texts_of_one_id_are_found_out_before_anything_is_encrypted() -> None:
    ring = EncryptionKeyRing([key(OCTETS), EncryptionKey(TEXT), EncryptionKey(TEXT)])
    for _ in range(2):
        with pytest.raises(SettingsError, match="two keys share an id"):
            _ = ring.primary


def test_neither_repr_nor_traceback_shows_a_key() -> None:
    octets = secrets.token_bytes(32)
    one = key(octets)
    ring = EncryptionKeyRing([one])
    for shown in (repr(one), str(one), repr(ring), f"{ring.primary} {ring}"):
        assert not any(spelling in shown for spelling in spellings(octets))
    assert repr(one) == f"EncryptionKey({id_of(octets)})"
    assert repr(EncryptionKey(TEXT)) == "EncryptionKey()"
    with pytest.raises(ValueError) as caught:
        EncryptionKey("too short to be " + "one")
    shown = everything_in(caught.value)
    assert "too short to be one" not in shown


def test_a_key_is_neither_copied_nor_pickled() -> None:
    with pytest.raises(TypeError):
        copy.deepcopy(key(OCTETS))


def test_what_is_derived_once_differs_by_purpose_length_and_salt() -> None:
    key, salt = EncryptionKey("ab" * 32), b"s" * 32
    for _ in range(2):
        found = {
            key.derive(b"a", 32),
            key.derive(b"b", 32),
            key.derive(b"a", 32, salt),
            key.derive(b"a", 31),
            EncryptionKey("cd" * 32).derive(b"a", 32),
        }
        assert len(found) == 5
        assert key.derive(b"a", 32) == EncryptionKey("ab" * 32).derive(b"a", 32)
