"""Detection of unusable secrets: placeholders, published examples, PEM, SSH, JWK and DER keys."""

from __future__ import annotations

import base64
import binascii
import re

KEY_FORMS = (
    "base64 of 32 bytes (openssl rand -base64 32), 64 hex digits, or at least 32 characters of "
    "random text"
)

_HEX_KEY = re.compile(r"[0-9A-Fa-f]{64}")
_BASE64_KEY = re.compile(r"[A-Za-z0-9+/]{43}=?")
_NOT_LETTERS = re.compile(r"[^a-z0-9]+")
_PLACEHOLDERS = (
    "changeme",
    "changethis",
    "changeinproduction",
    "djangoinsecure",
    "placeholder",
    "replaceme",
    "replacewith",
    "replacethis",
    "your256bitsecret",
    "yourencryptionkey",
    "yourjwtsecret",
    "yoursecret",
    "yoursupersecret",
)
_PUBLISHED = frozenset(
    {
        "developmentsecretkey32charsmin",
        "developmentencryptionkey32chars",
        # examples of jwt.io and Supabase
        "astringsecretatleast256bitslong",
        "avalidstringsecretthatisatleast512bitslongwhichisverylong",
        "supersecretjwttokenwithatleast32characterslong",
    }
)
_VARIABLE = re.compile(r"\$\w+")
_KEY_FILES = ("-----BEGIN", "---- BEGIN", "ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")
_SHORTEST_DER = 44  # an Ed25519 public key


def is_placeholder(secret: str) -> bool:
    """Tell whether a secret is a placeholder, blank, or a published example."""
    if not secret.strip() or _VARIABLE.fullmatch(secret):
        return bool(secret)
    letters = _NOT_LETTERS.sub("", secret.casefold())
    return letters in _PUBLISHED or any(word in letters for word in _PLACEHOLDERS)


def is_asymmetric_key(secret: str) -> bool:
    """Tell whether a secret looks like an asymmetric key or a JWK: PEM, SSH, JWK or DER.

    If a public key is the secret, anybody can sign tokens (CVE-2017-11424, CVE-2022-29217).
    """
    text = secret.strip("\ufeff \t\r\n")
    if text.startswith(_KEY_FILES) or "-----BEGIN" in text:
        return True
    if text.startswith(("{", "[")) and '"kty"' in text:
        return True
    return _is_encoded_der(text)


def _is_encoded_der(text: str) -> bool:
    """Tell whether text is a DER key in base64 or hex."""
    compact = "".join(text.split())
    for decode in (_decode_base64, binascii.unhexlify):
        try:
            octets = decode(compact)
        except ValueError:
            continue
        if is_der(octets):
            return True
    return False


def is_der(octets: bytes) -> bool:
    """Tell whether octets look like a DER-encoded key: one long enough sequence (X.690 §8.1)."""
    return len(octets) >= _SHORTEST_DER and octets[0] == 0x30 and _has_der_length(octets)


def _decode_base64(text: str) -> bytes:
    standard = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)


def _has_der_length(octets: bytes) -> bool:
    """Tell whether the DER length covers all octets, and a sequence or integer comes first."""
    size = octets[1] & 0x7F if octets[1] & 0x80 else 0
    header = 2 + size
    length = int.from_bytes(octets[2:header], "big") if size else octets[1]
    return len(octets) == header + length and octets[header] in (0x02, 0x30)


def key_material(key: str) -> str | bytes:
    """Decode an encryption key from hex or base64, so that equal keys compare equal.

    Returns:
        The 32 bytes that hex or base64 text encodes; any other text unchanged.
    """
    if _HEX_KEY.fullmatch(key):
        return bytes.fromhex(key)
    if _BASE64_KEY.fullmatch(key):
        return _decode_base64(key)
    return key
