"""The formats written a second time, from the primitives alone."""

from __future__ import annotations

import base64
import hmac
import traceback

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7


def hkdf(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with SHA-256; no salt is 32 zeros."""
    extracted = hmac.digest(salt or bytes(32), key, "sha256")
    found, block, counter = b"", b"", 1
    while len(found) < length:
        block = hmac.digest(extracted, block + info + bytes([counter]), "sha256")
        found, counter = found + block, counter + 1
    return found[:length]


def id_of(key: bytes) -> str:
    return hkdf(key, b"", b"flask-m9m key id", 4).hex()


def associated(key: bytes, *parts: bytes) -> bytes:
    all_parts = (b"m9m:1", id_of(key).encode(), *parts)
    return b"".join(len(part).to_bytes(4, "big") + part for part in all_parts)


def derived(key: bytes, salt: bytes) -> tuple[bytes, bytes, bytes]:
    """Key, nonce and commitment."""
    octets = hkdf(key, salt, b"flask-m9m credential v1", 76)
    return octets[:32], octets[32:44], octets[44:]


def aead_envelope(key: bytes, salt: bytes, plaintext: bytes, *parts: bytes) -> str:
    once, nonce, commitment = derived(key, salt)
    ciphertext = AESGCM(once).encrypt(nonce, plaintext, associated(key, *parts))
    return aead_text(id_of(key), salt + commitment + ciphertext)


def aead_text(key_id: str, octets: bytes) -> str:
    return f"m9m:1:{key_id}:{base64.urlsafe_b64encode(octets).decode().rstrip('=')}"


def aead_octets(envelope: str) -> bytes:
    payload = envelope.split(":")[3]
    return base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))


def fernet_key(key: bytes) -> bytes:
    return hkdf(key, b"", b"flask-m9m fernet v1", 32)


def fernet_envelope(key: bytes, time: int, iv: bytes, plaintext: bytes, *parts: bytes) -> str:
    bound = associated(key, *parts)
    token = fernet_token(
        fernet_key(key), time, iv, len(bound).to_bytes(4, "big") + bound + plaintext
    )
    return f"m9m:f1:{id_of(key)}:{token}"


def fernet_token(key: bytes, time: int, iv: bytes, plaintext: bytes) -> str:
    """The Fernet specification."""
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES128(key[16:]), modes.CBC(iv)).encryptor()
    padded = padder.update(plaintext) + padder.finalize()
    body = b"\x80" + time.to_bytes(8, "big") + iv + encryptor.update(padded) + encryptor.finalize()
    return base64.urlsafe_b64encode(body + hmac.digest(key[:16], body, "sha256")).decode()


def spellings(octets: bytes) -> list[str]:
    """The ways in which bytes may appear in a text."""
    encoded = base64.b64encode(octets).decode().rstrip("=")
    written = [octets.hex(), octets.hex().upper(), encoded, repr(octets)[2:-1]]
    return [*written, encoded.replace("+", "-").replace("/", "_")]


def everything_in(error: BaseException) -> str:
    """A traceback with the locals of its frames, but for the first, the test's own."""
    assert error.__traceback__ is not None
    below = error.with_traceback(error.__traceback__.tb_next)
    found = traceback.TracebackException.from_exception(below, capture_locals=True)
    return "".join(found.format())
