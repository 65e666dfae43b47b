from __future__ import annotations

import secrets
from typing import Any

import pytest

from flask_m9m.credentials.encryption.cipher import Cipher, Record, key_id_of
from flask_m9m.errors import DecryptionFailed, SettingsError
from flask_m9m.settings import CredentialSettings

from . import independent
from .independent import aead_envelope, everything_in, fernet_envelope, id_of, spellings
from .test_encryption_keys import SAME_ID, TEXT

CIPHERS = ("aes-256-gcm", "fernet")
PREFIXES = {"aes-256-gcm": "m9m:1", "fernet": "m9m:f1"}
OLD, NEW = secrets.token_bytes(32), secrets.token_bytes(32)
RECORD = Record("r-1", "apiKey", "alice")
FAILED = "cipher: message authentication failed"


def cipher(*keys: bytes | str, kind: str = "aes-256-gcm") -> Cipher:
    texts = [key if isinstance(key, str) else key.hex() for key in keys]
    return Cipher(
        CredentialSettings(
            encryption_key=texts[0] if texts else None, previous_keys=texts[1:], cipher=kind
        )
    )


def refused(ours: Cipher, text: Any, associated_data: bytes = b"") -> bool:
    """Tell whether a text is refused with the one error, and without another behind it."""
    try:
        ours.decrypt(text, associated_data)
    except DecryptionFailed as error:
        return str(error) == FAILED and error.__cause__ is None and error.__context__ is None
    return False


@pytest.fixture(params=CIPHERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- what opens


@pytest.mark.parametrize("plaintext", [b"", b"x" * 16, b"\0", "🔑".encode(), b"m" * 10**6])
def test_any_bytes_come_back(kind: str, plaintext: bytes) -> None:
    ours = cipher(NEW, kind=kind)
    text = ours.encrypt(plaintext, b"users/7/phone")
    assert text.startswith(f"{PREFIXES[kind]}:{id_of(NEW)}:")
    assert ours.decrypt(text, b"users/7/phone") == plaintext
    stored = ours.encrypt_record(plaintext, RECORD)
    assert ours.decrypt_record(stored, RECORD) == plaintext


def test_an_apps_field_is_bound_to_three_empty_strings_and_the_apps_data() -> None:
    parts = (b"", b"", b"", b"users/7/phone")
    ours = cipher(NEW)
    text = aead_envelope(NEW, bytes(32), b"secret", *parts)
    assert ours.decrypt(text, b"users/7/phone") == b"secret"
    text = fernet_envelope(NEW, 0, bytes(16), b"secret", *parts)
    assert ours.decrypt(text, b"users/7/phone") == b"secret"


def test_a_record_is_bound_to_id_type_and_owner_in_utf_8() -> None:
    record = Record("r-1", "apiKey", "Zoë")
    parts = (b"r-1", b"apiKey", "Zoë".encode())
    text = aead_envelope(NEW, bytes(32), b"secret", *parts)
    assert cipher(NEW).decrypt_record(text, record) == b"secret"
    text = fernet_envelope(NEW, 0, bytes(16), b"secret", *parts)
    assert cipher(NEW).decrypt_record(text, record) == b"secret"


def test_both_ciphers_and_every_listed_key_are_read_and_one_writes() -> None:
    texts = [cipher(key, kind=kind).encrypt(b"x") for key in (OLD, NEW) for kind in CIPHERS]
    for kind in CIPHERS:
        ours = cipher(NEW, OLD, kind=kind)
        assert [ours.decrypt(text) for text in texts] == [b"x"] * 4
        assert [text.startswith(f"{ours.seal}:") for text in texts].count(True) == 1
        assert ours.encrypt(b"x").startswith(f"{ours.seal}:")
    assert cipher(NEW, OLD).keys.ids == (id_of(NEW), id_of(OLD))


def test_an_envelopes_key_id_can_be_asked_for(kind: str) -> None:
    text = cipher(OLD, kind=kind).encrypt(b"x")
    assert key_id_of(text) == id_of(OLD)
    assert refused(cipher(NEW), text)
    for other in (None, 1, b"", text.encode(), "", "x", text[:10], f" {text}", text.upper(), "m9m"):
        assert key_id_of(other) is None


@pytest.mark.parametrize("size", [0, 1, 2, 3, 255, 256])
def test_an_envelope_is_as_long_as_is_documented(size: int) -> None:
    plaintext, bound = bytes(size), b"users/7/phone"
    assert len(cipher(NEW).encrypt(plaintext, bound)) <= 4 / 3 * size + 124
    longest = 4 / 3 * (size + len(bound)) + 176
    assert len(cipher(NEW, kind="fernet").encrypt(plaintext, bound)) <= longest


# --- what does not


def test_the_error_says_the_same_for_every_cause_and_keeps_its_hint_apart() -> None:
    error = DecryptionFailed()
    assert str(error) == FAILED
    for cause in ("does not match", "changed", "wrong length"):
        assert cause in error.hint


def test_no_envelope_opens_with_a_bit_of_its_text_flipped(kind: str) -> None:
    ours = cipher(NEW, OLD, kind=kind)
    text = ours.encrypt(b"secret", b"x")
    for bit in range(len(text) * 8):
        place = bit // 8
        flipped = text[:place] + chr(ord(text[place]) ^ 1 << bit % 8) + text[place + 1 :]
        assert refused(ours, flipped, b"x")
    assert ours.decrypt(text, b"x") == b"secret"


def test_no_envelope_opens_cut_or_with_something_around_it(kind: str) -> None:
    ours = cipher(NEW, kind=kind)
    text = ours.encrypt(b"secret")
    assert all(refused(ours, text[:length]) for length in range(len(text)))
    for other in (f"{text}\n", f" {text}", f"{text}:", f"{text}:{text}", f"\ufeff{text}", text * 2):
        assert refused(ours, other)


@pytest.mark.parametrize(
    "text",
    [
        *(None, 1, 1.0, True, b"", [], {}),
        *("", ":", ":::", "m9m", "m9m:1", "m9m:1::", "m9m:1:00000000:", "m9m:2:00000000:AAAA"),
        *("U2FsdGVkX194VEoX27o3+y5jUd1JTTmVwkOKjVhB6Jg=", "é", "\ud800", "\0", "m9m:1:" + "é" * 99),
        *("m9m:1:00000000:" + "A" * 2**25 + "A", "A" * 2**26, ":" * 2**20),
    ],
    ids=lambda text: repr(text)[:30],
)
def test_hostile_input_is_refused_with_the_one_error(text: Any) -> None:
    assert refused(cipher(NEW), text)
    if isinstance(text, str):
        own = text.replace("00000000", id_of(NEW))
        assert refused(cipher(NEW), own)
        assert refused(cipher(NEW), own.replace("m9m:1", "m9m:f1"))


def test_an_envelope_in_bytes_is_refused(kind: str) -> None:
    ours = cipher(NEW, kind=kind)
    assert refused(ours, ours.encrypt(b"x").encode())


def test_another_key_id_or_format_before_a_payload_is_refused() -> None:
    ours = cipher(NEW, OLD)
    for kind in CIPHERS:
        text = cipher(NEW, kind=kind).encrypt(b"secret")
        payload = text.split(":")[3]
        for key_id in (id_of(OLD), "00000000", id_of(NEW).upper() + "A", id_of(NEW)[:-1], ""):
            assert refused(ours, f"{PREFIXES[kind]}:{key_id}:{payload}")
        for prefix in ("m9m:0", "m9m:2", "m9m:f2", "m9m:f", "M9M:1", "m9m", *PREFIXES.values()):
            if prefix != PREFIXES[kind]:
                assert refused(ours, f"{prefix}:{id_of(NEW)}:{payload}")


def test_records_cannot_be_swapped(kind: str) -> None:
    ours = cipher(NEW, kind=kind)
    text = ours.encrypt_record(b"secret", RECORD)
    for other in (
        Record("r-2", "apiKey", "alice"),
        Record("r-1", "oauth2", "alice"),
        Record("r-1", "apiKey", "bob"),
        Record("r-1", "apiKey"),
        Record("r-1a", "piKey", "alice"),
        Record("r-1", "apiKeya", "lice"),
        Record("R-1", "apiKey", "alice"),
    ):
        with pytest.raises(DecryptionFailed):
            ours.decrypt_record(text, other)
    for bound in (b"", b"r-1", b"r-1apiKeyalice"):
        assert refused(ours, text, bound)
    with pytest.raises(DecryptionFailed):
        ours.decrypt_record(ours.encrypt(b"secret"), RECORD)


def test_associated_data_has_to_be_the_same(kind: str) -> None:
    ours = cipher(NEW, kind=kind)
    text = ours.encrypt(b"secret", b"users/7/phone")
    assert all(refused(ours, text, bound) for bound in (b"", b"users/7/phon", b"users/8/phone"))
    assert refused(ours, ours.encrypt(b"secret"), b"users/7/phone")


@pytest.mark.parametrize("wrong", [None, 1, "text", bytearray(b"x"), memoryview(b"x"), [1]])
def test_what_is_no_bytes_is_a_type_error_that_does_not_show_it(kind: str, wrong: Any) -> None:
    ours = cipher(NEW, kind=kind)
    with pytest.raises(TypeError, match=f"plaintext must be bytes, found {type(wrong).__name__}$"):
        ours.encrypt(wrong)
    for call in (ours.encrypt, ours.decrypt):
        with pytest.raises(
            TypeError, match=f"associated_data must be bytes, found {type(wrong).__name__}"
        ):
            call(b"", wrong)  # type: ignore[operator]


def test_a_record_has_an_id_and_a_type_in_unicode() -> None:
    for values in (("", "apiKey"), ("r-1", "")):
        with pytest.raises(ValueError, match="an id and a type"):
            Record(*values)
    with pytest.raises(ValueError):
        cipher(NEW).encrypt_record(b"", Record("r-1", "apiKey", "\ud800"))


# --- keys


def test_without_an_encryption_key_the_error_says_what_to_do() -> None:
    ours = Cipher(CredentialSettings(previous_keys=[OLD.hex()]))
    for call in (lambda: ours.encrypt(b""), lambda: ours.decrypt(""), lambda: ours.seal):
        with pytest.raises(SettingsError, match="set M9M_ENCRYPTION_KEY"):
            call()


def test_keys_of_one_id_stop_the_start() -> None:
    with pytest.raises(SettingsError, match=r"credentials\.previous_keys: two keys share an id"):
        cipher(*SAME_ID)


def test_a_text_is_a_key_too() -> None:
    ours = cipher(NEW, TEXT)
    other = cipher(TEXT)
    text = other.encrypt(b"secret")
    assert ours.decrypt(text) == b"secret"


OURS = cipher(NEW, OLD)
THEIRS = {kind: cipher(OLD, kind=kind).encrypt(b"secret") for kind in CIPHERS}


def test_neither_repr_nor_traceback_shows_what_decrypts(kind: str) -> None:
    damaged = THEIRS[kind][:-6] + "AAAAA" + ("=" if kind == "fernet" else "A")
    with pytest.raises(DecryptionFailed) as caught:
        OURS.decrypt(damaged)
    shown = everything_in(caught.value) + repr(OURS) + repr(OURS.keys)
    assert "text = 'm9m:" in shown
    kept = [NEW, OLD, independent.fernet_key(OLD)]
    if kind == "aes-256-gcm":
        salt = independent.aead_octets(THEIRS[kind])[:32]
        kept += independent.derived(OLD, salt)[:2]
    for octets in kept:
        assert not any(spelling in shown for spelling in spellings(octets))
