"""n8n's ciphertexts, most of them written by n8n itself (`n8n-samples.json`)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_m9m.credentials import n8n_format
from flask_m9m.credentials.n8n_format import DataKey, N8nReader, write_old
from flask_m9m.errors import UnreadableImport

from .encryption.independent import everything_in, hkdf, spellings

SAMPLES = json.loads(Path(__file__).with_name("n8n-samples.json").read_text())
CASES = SAMPLES["cases"]
OLD, NEW = CASES[0], CASES[7]
DATA = json.loads(OLD["plaintext"])
DOES_NOT_OPEN = "the instance key does not match, or the value is damaged or not a JSON object"


def name(case: dict[str, Any]) -> str:
    return f"{case['producer']} {case['format']} {case['keyName']} {case['plaintextName']}"


def is_new(case: dict[str, Any]) -> bool:
    return case["format"] == "v2-prefixed-gcm"


def reader(case: dict[str, Any], instance_key: str | None = None) -> N8nReader:
    rows = [DataKey(case["dekId"], case["wrappedDek"], "aes-256-gcm")] if is_new(case) else []
    return N8nReader(instance_key or case["instanceKey"], rows)


def unreadable(ours: N8nReader, value: Any) -> str:
    """Return what the one error says."""
    with pytest.raises(UnreadableImport) as caught:
        ours.read(value)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert str(error).startswith("n8n: ")
    return str(error)


# The formats, written a second time.


def old_form(password: bytes, plaintext: bytes, salt: bytes = b"saltsalt") -> str:
    digests = [b""]
    for _ in range(3):
        digests.append(hashlib.md5(digests[-1] + password + salt).digest())
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(b"".join(digests[:3])), modes.CBC(digests[3])).encryptor()
    padded = padder.update(plaintext) + padder.finalize()
    return base64.b64encode(b"Salted__" + salt + encryptor.update(padded)).decode()


def new_form(data_key: bytes, plaintext: bytes, version: int = 1) -> str:
    salt = secrets.token_bytes(32)
    okm = hkdf(data_key, salt, b"n8n-encryption-v1", 44)
    sealed = AESGCM(okm[:32]).encrypt(okm[32:], plaintext, None)
    return base64.b64encode(bytes([version]) + salt + sealed[-16:] + sealed[:-16]).decode()


def wrapped(instance_key: str, plaintext: str) -> str:
    return new_form(hashlib.sha256(instance_key.encode()).digest(), plaintext.encode())


# --- what n8n wrote


@pytest.mark.parametrize("case", CASES, ids=name)
def test_every_sample_is_read_if_it_is_a_json_object(case: dict[str, Any]) -> None:
    if case["plaintextName"] == "json":
        assert reader(case).read(case["ciphertext"]) == json.loads(case["plaintext"])
    else:
        assert DOES_NOT_OPEN in unreadable(reader(case), case["ciphertext"])


@pytest.mark.parametrize("case", CASES, ids=name)
def test_every_sample_decrypts_to_its_text_in_one_of_the_dialects(case: dict[str, Any]) -> None:
    if is_new(case):
        wrapping = hashlib.sha256(case["instanceKey"].encode()).digest()
        assert (
            n8n_format._open_new(n8n_format._parse_new(case["wrappedDek"]), wrapping)
            == case["dekHex"].encode()
        )
        sealed = n8n_format._parse_new(case["ciphertext"].partition(":")[2])
        opened = [n8n_format._open_new(sealed, bytes.fromhex(case["dekHex"]))]
    else:
        sealed = n8n_format._parse_old(case["ciphertext"])
        opened = [
            n8n_format._open_old(sealed, one) for one in n8n_format._dialects(case["instanceKey"])
        ]
    assert case["plaintext"].encode() in opened


def test_the_dialects_are_utf_8_and_the_low_bytes_of_utf_16() -> None:
    assert n8n_format._dialects("key") == (b"key",)
    assert n8n_format._dialects("clé") == (b"cl\xc3\xa9", b"cl\xe9")
    assert n8n_format._dialects("键🔑") == ("键🔑".encode(), bytes([0x2E, 0x3D, 0x11]))
    for case in CASES:
        if case["keyName"] == "latin1" and not is_new(case):
            sealed = n8n_format._parse_old(case["ciphertext"])
            utf_8, low_bytes = n8n_format._dialects(case["instanceKey"])
            cryptojs = case["format"] == "legacy-cryptojs"
            right, wrong = (utf_8, low_bytes) if cryptojs else (low_bytes, utf_8)
            assert n8n_format._open_old(sealed, right) == case["plaintext"].encode()
            assert n8n_format._open_old(sealed, wrong) is None


def test_the_vectors_of_n8ns_own_tests_and_of_a_fixed_key_decrypt() -> None:
    value = "U2FsdGVkX194VEoX27o3+y5jUd1JTTmVwkOKjVhB6Jg="
    assert n8n_format._open_old(n8n_format._parse_old(value), b"test_key") == b"random-string"
    fixed = SAMPLES["gcmFixed"]
    sealed = n8n_format._parse_new(fixed["ciphertext"])
    opened = n8n_format._open_new(sealed, bytes.fromhex(fixed["keyHex"]))
    assert opened == fixed["plaintext"].encode()


# --- wrong keys and damage


def test_ten_thousand_wrong_keys_read_nothing_from_the_old_form() -> None:
    unpadded = 0
    sealed = n8n_format._parse_old(OLD["ciphertext"])
    for number in range(10_000):
        unpadded += n8n_format._open_old(sealed, f"wrong {number}".encode()) is not None
        with pytest.raises(UnreadableImport):
            N8nReader(f"wrong {number}").read(OLD["ciphertext"])
    assert unpadded == 26  # so many would have been garbage


def test_ten_thousand_wrong_keys_read_nothing_from_the_new_form() -> None:
    for number in range(10_000):
        with pytest.raises(UnreadableImport, match="does not decrypt the data key"):
            reader(NEW, f"wrong {number}").read(NEW["ciphertext"])


@pytest.mark.parametrize("case", [CASES[0], CASES[4], NEW], ids=name)
def test_no_sample_is_read_with_a_bit_flipped_or_cut(case: dict[str, Any]) -> None:
    ours = reader(case)
    prefix, colon, payload = case["ciphertext"].rpartition(":")
    octets = base64.b64decode(payload)
    for bit in range(len(octets) * 8):
        flipped = bytearray(octets)
        flipped[bit // 8] ^= 1 << bit % 8
        unreadable(ours, prefix + colon + base64.b64encode(flipped).decode())
    for length in range(len(octets)):
        unreadable(ours, prefix + colon + base64.b64encode(octets[:length]).decode())
    for length in range(len(case["ciphertext"])):
        unreadable(ours, case["ciphertext"][:length])


@pytest.mark.parametrize(
    "value",
    [
        *(None, 1, b"", [], {}, b"U2FsdGVkX194VEoX27o3+y5jUd1JTTmVwkOKjVhB6Jg="),
        *("", " ", "x", ":", "::", "a:", ":a", "a:b", "é", "\ud800", "\0", "{}", "=", "===="),
        *("m9m:1:00000000:AAAA", "U2FsdGVkX18=", "x" * 37 + ":AQ==", f"{NEW['dekId']}:"),
        *(f"{NEW['dekId']}:AQ==", f"{NEW['dekId']}:{'A' * 64}", f"{NEW['dekId']}:::"),
        *(f" {NEW['ciphertext']}", NEW["ciphertext"] + "\n", NEW["ciphertext"] + "A"),
        *(OLD["ciphertext"] + "\n", OLD["ciphertext"][:-1] + "!", OLD["ciphertext"] * 2),
        *("A" * (n8n_format.LONGEST + 1), "A" * n8n_format.LONGEST, ":" * 2**20),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_hostile_values_give_one_clear_error(value: Any) -> None:
    said = unreadable(reader(NEW), value)
    assert len(said) < 150


def test_another_version_is_named() -> None:
    payload = new_form(bytes.fromhex(NEW["dekHex"]), b"{}", version=2)
    said = unreadable(reader(NEW), f"{NEW['dekId']}:{payload}")
    assert said == "n8n: unsupported version 2; known: 1"


def test_a_value_is_read_in_no_other_form_than_its_rows() -> None:
    instance_key, data_key = "test_key", secrets.token_bytes(32)
    gcm = DataKey("gcm", wrapped(instance_key, data_key.hex().upper()), "aes-256-gcm")
    cbc = DataKey("cbc", wrapped(instance_key, instance_key), "aes-256-cbc")
    ours = N8nReader(instance_key, [gcm, cbc])
    new, old = new_form(data_key, b'{"a":1}'), old_form(b"test_key", b'{"a":1}')
    assert ours.read(f"gcm:{new}") == ours.read(f"cbc:{old}") == ours.read(old) == {"a": 1}
    for value in (f"gcm:{old}", f"cbc:{new}", new):
        unreadable(ours, value)


def test_what_is_wrong_with_a_row_is_said() -> None:
    key, payload = secrets.token_bytes(32), NEW["ciphertext"].partition(":")[2]
    good = wrapped("test_key", key.hex())
    for row, said in [
        (DataKey("other", good, "aes-256-gcm"), "unknown data key 'k'; give its row"),
        (DataKey("k", good, "aes-256-ctr"), "'k' has an unsupported algorithm"),
        (
            DataKey("k", wrapped("another", key.hex()), "aes-256-gcm"),
            "does not decrypt the data key",
        ),
        (DataKey("k", "!", "aes-256-gcm"), "not base64"),
        (DataKey("k", None, "aes-256-gcm"), "not base64"),  # type: ignore[arg-type]
        (DataKey("k", "", "aes-256-gcm"), "too short"),
        (DataKey("k", wrapped("test_key", key.hex()[:-1]), "aes-256-gcm"), DOES_NOT_OPEN),
        (DataKey("k", wrapped("test_key", key.hex() + "\n"), "aes-256-gcm"), DOES_NOT_OPEN),
        (DataKey("k", wrapped("test_key", ""), "aes-256-gcm"), DOES_NOT_OPEN),
    ]:
        assert said in unreadable(N8nReader("test_key", [row]), f"k:{payload}")
    for text in ("", "\ufffd"):
        row = DataKey("k", wrapped("test_key", text), "aes-256-cbc")
        assert DOES_NOT_OPEN in unreadable(N8nReader("test_key", [row]), f"k:{OLD['ciphertext']}")
    with pytest.raises(ValueError, match="two data keys have the same id"):
        N8nReader("test_key", [DataKey("k", good, "aes-256-gcm")] * 2)


@pytest.mark.parametrize("instance_key", ["", "\ud800"])
def test_an_instance_key_is_text(instance_key: str) -> None:
    with pytest.raises(ValueError, match="instance key must"):
        N8nReader(instance_key)
    with pytest.raises(ValueError, match="instance key must"):
        write_old({}, instance_key)


@pytest.mark.parametrize(
    "plaintext",
    [
        *(b"", b"[]", b"null", b"1", b'"{}"', b"random-string", b"{} {}", b"{", b"{'a': 1}"),
        *(b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e999}', b'{"a":"\xff"}', b"\xef\xbb\xbf{}"),
        *(b'{"a":' * 10**5, b'{"a":' + b"[" * 10**5, b'{"a":' + b"1" * 5_000 + b"}"),
        *(b'{"a":1,}', b"{a:1}", b'{"a":"\n"}', "{}".encode("utf-16")),
    ],
    ids=lambda plaintext: repr(plaintext)[:24],
)
def test_only_a_json_object_is_accepted(plaintext: bytes) -> None:
    assert DOES_NOT_OPEN in unreadable(N8nReader("test_key"), old_form(b"test_key", plaintext))
    key = bytes.fromhex(NEW["dekHex"])
    value = f"{NEW['dekId']}:{new_form(key, plaintext)}"
    assert unreadable(reader(NEW), value)


# --- writing


@pytest.mark.parametrize("instance_key", ["test_key", "clé-ünïcode", "键-ключ-key", "🔑"])
def test_what_is_written_is_the_old_form_with_the_low_bytes_of_the_key(instance_key: str) -> None:
    data = {**DATA, "name": "日本語 🔑", "none": None}
    value = write_old(data, instance_key)
    assert N8nReader(instance_key).read(value) == data
    salt = base64.b64decode(value)[8:16]
    low_bytes = bytes(unit & 0xFF for unit in units(instance_key))
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    assert value == old_form(low_bytes, text.encode(), salt)


def units(text: str) -> list[int]:
    """The units of UTF-16."""
    octets = text.encode("utf-16-be")
    return [octets[at] << 8 | octets[at + 1] for at in range(0, len(octets), 2)]


def test_the_old_form_is_frozen_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        n8n_format.os, "urandom", lambda size: base64.b64decode(OLD["ciphertext"])[8:16]
    )
    assert write_old(DATA, OLD["instanceKey"]) == OLD["ciphertext"]


VALUES = st.text(max_size=40) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(max_size=9), VALUES | st.none()))
@settings(max_examples=60, deadline=None)
def test_any_json_object_comes_back(data: dict[str, Any]) -> None:
    assert N8nReader("test_key").read(write_old(data, "test_key")) == data


@pytest.mark.parametrize("data", [{"a": b""}, {"a": float("nan")}, {"a": "\ud800"}, {"a": {1}}])
def test_what_is_no_json_is_not_written(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        write_old(data, "test_key")


def test_every_written_value_has_a_salt_of_its_own() -> None:
    assert len({base64.b64decode(write_old({}, "k"))[8:16] for _ in range(1_000)}) == 1_000


# --- secrets


@pytest.mark.parametrize("case", [OLD, NEW], ids=name)
def test_neither_repr_nor_traceback_shows_what_decrypts(case: dict[str, Any]) -> None:
    ours, key = reader(case), case["instanceKey"].encode()
    with pytest.raises(UnreadableImport) as caught:
        ours.read(f"{case['ciphertext'][:-24]}{'A' * 24}")
    shown = everything_in(caught.value) + repr(ours)
    assert f"value = '{case['ciphertext'][:40]}" in shown
    for octets in (key, hashlib.sha256(key).digest(), bytes.fromhex(case.get("dekHex", "")) or key):
        assert not any(spelling in shown for spelling in spellings(octets))
    row = DataKey("k", "wrapped", "aes-256-gcm")
    assert repr(row) == "DataKey(id='k', algorithm='aes-256-gcm')"
