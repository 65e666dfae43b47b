"""Wycheproof's JSON Web Signatures, and RFC 7515, 7520 and 7797."""

from __future__ import annotations

import base64
import secrets
from typing import Any

import pytest
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from flask_m9m.auth.jwt.jws import verify
from flask_m9m.auth.jwt.signing_keys import SigningKey, SigningKeyRing
from flask_m9m.errors import InvalidToken
from tests.vectors import load_vectors

WYCHEPROOF = "wycheproof/json_web_signature_test.json"
COOKBOOK = "rfc7520-cookbook/jws/4_4.hmac-sha2_integrity_protection.json"
SAME_AS_A_VALID_ONE = {367, 370}
LENIENTLY_VALID = {372, 373}


def octets(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def holds(token: str, ring: SigningKeyRing) -> bool:
    try:
        verify(token, ring)
    except InvalidToken:
        return False
    return True


def test_every_hmac_vector_is_judged_as_labelled() -> None:
    judged = 0
    for group in load_vectors(WYCHEPROOF)["testGroups"]:
        jwk = group["private"]
        if jwk["kty"] != "oct":
            continue
        ring = SigningKeyRing([SigningKey(octets(jwk["k"]), jwk["alg"], jwk["kid"])])
        for test in group["tests"]:
            judged += 1
            if test["tcId"] in SAME_AS_A_VALID_ONE:
                continue
            valid = test["result"] == "valid" and test["tcId"] not in LENIENTLY_VALID
            assert holds(test["jws"], ring) is valid, test["tcId"]
    assert judged == 40


def test_every_vector_of_another_algorithm_is_refused() -> None:
    refused = 0
    for group in load_vectors(WYCHEPROOF)["testGroups"]:
        jwk = group.get("public") or group["private"]
        if jwk["kty"] == "oct":
            continue
        ring = SigningKeyRing([SigningKey(secrets.token_bytes(64), kid=jwk.get("kid"))])
        for test in group["tests"]:
            refused += 1
            assert not holds(test["jws"], ring), test["tcId"]
    assert refused == 361


def test_no_public_key_of_the_vectors_can_become_a_secret() -> None:
    """CVE-2017-11424, CVE-2022-29217: whoever knows the public key could sign with it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    forms = [
        (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        (Encoding.OpenSSH, PublicFormat.OpenSSH),
    ]
    for group in load_vectors(WYCHEPROOF)["testGroups"][:80]:
        jwk: dict[str, Any] = group.get("public") or {}
        reader: Any = {"RSA": RSAAlgorithm, "EC": ECAlgorithm}.get(jwk.get("kty", ""))
        if reader is None:
            continue
        try:
            public = reader.from_jwk(jwk)
        except Exception:  # some vectors hold keys that are no keys
            continue
        for encoding, form in forms:
            with pytest.raises(ValueError):
                SigningKey(public.public_bytes(encoding, form))


def test_rfc_7520_section_4_4_verifies_and_signs_to_the_same_bytes() -> None:
    example = load_vectors(COOKBOOK)
    jwk = example["input"]["key"]
    key = SigningKey(octets(jwk["k"]), kid=jwk["kid"])
    jws = verify(example["output"]["compact"], SigningKeyRing([key]))
    assert jws.payload.decode() == example["input"]["payload"]
    signature = key.sign(example["signing"]["sig-input"].encode())
    assert signature == octets(example["signing"]["sig"])


def test_rfc_7515_appendix_a_1_verifies() -> None:
    token = (
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
        ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    )
    secret = (
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
    )
    assert holds(token, SigningKeyRing([SigningKey(octets(secret))]))


def test_an_unencoded_payload_is_refused() -> None:
    example = load_vectors("rfc7520-cookbook/rfc7797/hmac-sha2_b64_false.json")
    ring = SigningKeyRing([SigningKey(octets(example["input"]["key"]["k"]))])
    assert not holds(example["output"]["compact"], ring)
