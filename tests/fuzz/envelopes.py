"""Harness of what is encrypted: envelopes of both ciphers, and both forms of n8n's values.

Most of the cases are well-formed: the octets are damaged, and not their base64.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Hashable
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flask_m9m.credentials.encryption.cipher import Cipher, Record
from flask_m9m.credentials.n8n_format import DataKey, N8nReader, write_old
from flask_m9m.errors import DecryptionFailed, UnreadableImport
from flask_m9m.settings import CredentialSettings

from .harness import Harness, Wrong
from .mutation import Mutator
from .requests import no_chance

KEYS = ["00" * 31 + "01", "00" * 31 + "02"]
INSTANCE = "an instance's key"
RECORDS = (Record("id", "type", "ann"), Record("i", "dtype", "ann"), Record("id", "type"))
DATA = {"accessToken": "a secret", "ü": [1, None]}


class Opened(NamedTuple):
    """A text, and what it is opened as: an app's data, a record of some number, n8n's value."""

    text: str
    kind: str


class Envelopes(Harness):
    """Envelopes and n8n's values, damaged, cut, joined, and opened as another's."""

    name = "envelopes"
    outcomes = ("opened", "refused")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with no_chance():
            ciphers = [
                Cipher(CredentialSettings(encryption_key=key, previous_keys=[other], cipher=cipher))
                for cipher in ("aes-256-gcm", "fernet")
                for key, other in (KEYS, KEYS[::-1])
            ]
            self._cipher = ciphers[0]
            self._reader = N8nReader(INSTANCE, data_keys())
            self._plain: dict[Opened, Any] = {}
            for cipher in ciphers:
                self._plain[Opened(cipher.encrypt(b"data of the app", b"row 1"), "app")] = (
                    b"data of the app"
                )
                for number, record in enumerate(RECORDS):
                    sealed = cipher.encrypt_record(b'{"a": 1}', record)
                    self._plain[Opened(sealed, str(number))] = b'{"a": 1}'
            for text in (write_old(DATA, INSTANCE), new_value()):
                self._plain[Opened(text, "n8n")] = DATA
        ours = [case.text for case in self._plain if case.kind != "n8n"]
        others = [case.text for case in self._plain if case.kind == "n8n"]
        words = ("m9m:1:", "m9m:f1:", ":", "=", "==", "A", "gAAAAA", "00000000", "٣", "\ud800")
        self._ours = Mutator(ours, (*words, *(text[:15] for text in ours)))
        self._others = Mutator(others, ("U2FsdGVkX1", "=", ":", "key1:", "AQ", "\n", "٣"))

    def make(self, random: Random) -> Opened:
        texts, kind = self._ours, random.choice(("app", "0", "1", "2"))
        if random.random() < 0.4:
            texts, kind = self._others, "n8n"
        if random.random() < 0.2:
            return Opened(texts.text(random), kind)
        return Opened(damaged(random.choice(texts.corpus), random), kind)

    def run(self, case: Opened) -> Any:
        try:
            if case.kind == "n8n":
                return self._reader.read(case.text)
            if case.kind == "app":
                return self._cipher.decrypt(case.text, b"row 1")
            return self._cipher.decrypt_record(case.text, RECORDS[int(case.kind)])
        except (DecryptionFailed, UnreadableImport) as error:
            return error

    def group(self, case: Opened, result: Any) -> Hashable:
        return form(case.text), str(result)[:40], len(case.text).bit_length()

    def check(self, case: Opened, result: Any) -> str:
        if case in self._plain:
            if result != self._plain[case]:
                raise Wrong(f"opens as {result!r}")
            return "opened"
        if isinstance(result, Exception):
            return "refused"
        if not self._is_the_same(case, result):
            raise Wrong(f"FORGERY: opens as {result!r}")
        return "opened"

    def _is_the_same(self, case: Opened, result: Any) -> bool:
        """Tell whether n8n's base64 is of the same octets: its unused bits mean nothing."""
        if case.kind != "n8n" or result != DATA:
            return False
        return any(
            octets(case.text) == octets(known.text) for known in self._plain if known.kind == "n8n"
        )


def form(text: str) -> str:
    """Tell as what a text is read, by its beginning."""
    if text.startswith("m9m:"):
        return text.rpartition(":")[0]
    return text.partition(":")[0] if ":" in text else text[:10]


def decoded(payload: str, *, ours: bool) -> bytes:
    letters = payload.rstrip("=")
    return b64decode(letters + "=" * (-len(letters) % 4), b"-_" if ours else b"+/", validate=True)


def damaged(text: str, random: Random) -> str:
    """Change octets of an envelope or value, which stays well-formed."""
    before, colon, payload = text.rpartition(":")
    changed = bytearray(decoded(payload, ours=text.startswith("m9m")))
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(changed))
        if len(changed) > 64 and random.random() < 0.9:
            at = random.randrange(64, len(changed))  # past salts and commitments
        kind = random.randrange(8)
        if kind == 0:
            del changed[at : at + random.choice((1, 16, 16, 16))]
        elif kind == 1:
            changed[at:at] = random.randbytes(random.choice((1, 16, 16, 16, 4_096)))
        else:
            changed[at] ^= 1 << random.randrange(8)
        changed = changed or bytearray(16)
    if not text.startswith("m9m"):
        return before + colon + b64encode(changed).decode()
    encoded = urlsafe_b64encode(changed).decode()
    return before + colon + (encoded if text.startswith("m9m:f1") else encoded.rstrip("="))


def octets(value: str) -> tuple[str, bytes]:
    key_id, colon, payload = value.rpartition(":")
    return key_id + colon, b64decode(payload, validate=True)


def under(key: bytes, plaintext: str, salt: bytes) -> str:
    """Encrypt as n8n does since 2.20."""
    derived = HKDF(SHA256(), 44, salt=salt, info=b"n8n-encryption-v1").derive(key)
    sealed = AESGCM(derived[:32]).encrypt(derived[32:], plaintext.encode(), None)
    return b64encode(b"\x01" + salt + sealed[-16:] + sealed[:-16]).decode()


def data_keys() -> list[DataKey]:
    wrapped = under(sha256(INSTANCE.encode()).digest(), "07" * 32, b"s" * 32)
    return [DataKey("key1", wrapped, "aes-256-gcm"), DataKey("key2", wrapped, "aes-256-cbc")]


def new_value() -> str:
    return "key1:" + under(b"\x07" * 32, json.dumps(DATA), b"t" * 32)


HARNESSES = (Envelopes,)
