from __future__ import annotations

import base64
import hashlib
import json
import secrets
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.settings import Settings, check, check_secret_key
from flask_m9m.settings.secrets import is_asymmetric_key, is_placeholder

from .conftest import Load, Problems

HASH = f"scrypt:131072:8:1$salt${'0' * 128}"


def jwt(**settings: Any) -> dict[str, Any]:
    return {"security": {"jwt": settings}}


def paths(settings: dict[str, Any]) -> list[str]:
    return [problem.path for problem in check(Settings.model_validate(settings))]


# --- the signing secret


@pytest.mark.parametrize(("algorithm", "shortest"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_at_least_as_long_as_its_algorithms_hash(algorithm: str, shortest: int) -> None:
    assert paths(jwt(secret="s" * shortest, algorithm=algorithm)) == []
    (problem,) = check(
        Settings.model_validate(jwt(secret="s" * (shortest - 1), algorithm=algorithm))
    )
    assert problem.path == "security.jwt.secret"
    assert problem.found == f"a secret of {shortest - 1} bytes"
    assert f"at least {shortest} bytes" in problem.accepted


def test_the_length_is_counted_in_bytes() -> None:
    assert paths(jwt(secret="é" * 16)) == []
    assert paths(jwt(secret="é" * 15)) == ["security.jwt.secret"]


@pytest.mark.parametrize("secret", ["", "secret", "s" * 31])
def test_short_secrets_stop_the_start(problems: Problems, secret: str) -> None:
    (problem,) = problems(jwt(secret=secret))
    assert problem.path == "security.jwt.secret"
    assert "flask m9m secret --bytes 32" in problem.accepted


@pytest.mark.parametrize(
    "secret",
    [
        "changeme",
        "changeme" * 5,
        "Change-Me-" * 5,
        "change-this-to-a-random-secret-please",
        "your-secret-key-minimum-32-characters",
        "YOUR_JWT_SECRET_" * 3,
        "development-secret-key-32-chars-min",
        "replace-me-with-something-that-is-random",
        "replace-with-a-32-character-random-string",
        "a-string-secret-at-least-256-bits-long",
        "super-secret-jwt-token-with-at-least-32-characters-long",
        "your-256-bit-secret-your-256-bit-secret",
        "dev-secret-key-change-in-production!!",
        "$M9M_JWT_SECRET_FROM_THE_ENVIRONMENT",
        " " * 40,
        "\n" * 40,
    ],
)
def test_placeholders_stop_the_start(secret: str) -> None:
    settings = Settings.model_validate(
        {**jwt(secret=secret), "credentials": {"encryption_key": secret + "x"}}
    )
    found = {problem.path: problem.found for problem in check(settings)}
    assert found["security.jwt.secret"] == "a placeholder"


def test_random_secrets_are_no_placeholders_and_no_keys() -> None:
    for seed in range(500):
        octets = hashlib.sha512(bytes([seed % 256, seed // 256])).digest()
        for size in (32, 48, 64):
            for text in (base64.b64encode(octets[:size]).decode(), octets[:size].hex()):
                assert not is_placeholder(text)
                assert not is_asymmetric_key(text)


def key_texts() -> list[str]:
    private_keys = [
        rsa.generate_private_key(65_537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ]
    texts = []
    for key in private_keys:
        public = key.public_key()
        texts.append(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())
        ders = [public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)]
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        ders.append(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
        if isinstance(key, rsa.RSAPrivateKey):
            ders.append(key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1))
        texts += [pem.decode(), pem.decode().strip(), "\n" + pem.decode()]
        for der in ders:
            texts += [base64.b64encode(der).decode(), der.hex(), base64.encodebytes(der).decode()]
            texts.append(base64.urlsafe_b64encode(der).decode().rstrip("="))
    jwk = {"kty": "oct", "k": "s" * 43}
    return [*texts, json.dumps(jwk), " " + json.dumps({"keys": [jwk]}), json.dumps([jwk])]


def test_keys_of_another_kind_stop_the_start() -> None:
    for text in key_texts():
        (problem,) = check(Settings.model_validate(jwt(secret=text)))
        assert problem.found == "a key in PEM, SSH, JWK or DER form"
        assert is_asymmetric_key(text)


@given(st.one_of(st.text(), st.binary().map(lambda b: base64.b64encode(b"0" + b).decode())))
def test_no_secret_raises(secret: str) -> None:
    is_placeholder(secret)
    is_asymmetric_key(secret)


def test_enabled_without_a_secret_says_what_to_run(problems: Problems) -> None:
    (problem,) = problems(jwt(enabled=True))
    assert problem.path == "security.jwt.secret"
    assert "run: flask m9m init" in problem.accepted


def test_development_mode_needs_no_secret(loading: Load) -> None:
    loading({**jwt(enabled=True), "development": {"enabled": True}})
    loading(jwt(enabled=True), environ={"M9M_DEV_MODE": "true"})


def test_without_a_secret_jwt_is_merely_off(loading: Load) -> None:
    assert loading(jwt(enabled=None)).settings.security.jwt.secret is None


def test_a_secret_that_is_not_used_is_not_judged(loading: Load) -> None:
    loading(jwt(enabled=False, secret="changeme", previous_secrets=["x"]))


def test_previous_secrets_follow_the_same_rules() -> None:
    previous = ["short", "changeme" * 5, "s" * 32, "p" * 32, "p" * 32, "-----BEGIN PUBLIC KEY-----"]
    found = [
        (problem.path, problem.found)
        for problem in check(
            Settings.model_validate(jwt(secret="s" * 32, previous_secrets=previous))
        )
    ]
    entry = "security.jwt.previous_secrets"
    assert found == [
        (f"{entry}[0]", "a secret of 5 bytes"),
        (f"{entry}[1]", "a placeholder"),
        (f"{entry}[2]", "a secret that is listed already"),
        (f"{entry}[4]", "a secret that is listed already"),
        (f"{entry}[5]", "a key in PEM, SSH, JWK or DER form"),
    ]


@pytest.mark.parametrize("where", ["encryption_key", "previous_keys"])
def test_a_secret_is_no_encryption_key_however_that_is_spelled(where: str) -> None:
    octets = secrets.token_bytes(32)
    spellings = [
        octets.hex(),
        octets.hex().upper(),
        base64.b64encode(octets).decode(),
        base64.b64encode(octets).decode().rstrip("="),
    ]
    for secret in spellings:
        for key in spellings:
            credentials = {where: key if where == "encryption_key" else [key]}
            settings = {**jwt(secret=secret), "credentials": credentials}
            assert paths(settings) == ["security.jwt.secret"]
            settings = {**jwt(previous_secrets=[secret]), "credentials": credentials}
            assert paths(settings) == ["security.jwt.previous_secrets[0]"]


def test_a_secret_is_not_the_apps_secret_key() -> None:
    settings = Settings.model_validate(jwt(secret="é" * 32, previous_secrets=["p" * 32]))
    for same in ("é" * 32, ("é" * 32).encode()):
        (problem,) = check_secret_key(settings, same)
        assert problem.path == "security.jwt.secret"
        assert "é" not in str(problem)
    for other in (None, "", b"", "x", "p" * 32, b"\xff", "\udcff"):
        assert check_secret_key(settings, other) == []
    assert check_secret_key(Settings(), "x") == []
    off = Settings.model_validate(jwt(secret="s" * 32, enabled=False))
    assert check_secret_key(off, "s" * 32) == []


# --- the encryption key


@pytest.mark.parametrize(
    "key",
    [
        base64.b64encode(bytes(range(32))).decode(),
        base64.b64encode(bytes(range(32))).decode().rstrip("="),
        bytes(range(32)).hex(),
        "any other text of 32 characters.",
    ],
)
def test_an_encryption_key_has_one_of_three_forms(key: str) -> None:
    assert paths({"credentials": {"encryption_key": key}}) == []


def test_an_encryption_key_that_is_too_short_is_told_the_forms() -> None:
    settings = Settings.model_validate({"credentials": {"encryption_key": "k" * 31}})
    (problem,) = check(settings)
    assert problem.found == "a secret of 31 bytes"
    for form in ("base64 of 32 bytes", "64 hex digits", "at least 32 characters"):
        assert form in problem.accepted


def test_an_encryption_key_is_listed_once() -> None:
    octets = secrets.token_bytes(32)
    credentials = {
        "encryption_key": octets.hex(),
        "previous_keys": ["p" * 32, base64.b64encode(octets).decode(), "p" * 32, "short"],
    }
    assert paths({"credentials": credentials}) == [
        "credentials.previous_keys[1]",
        "credentials.previous_keys[2]",
        "credentials.previous_keys[3]",
    ]


def test_an_encryption_key_is_no_placeholder_and_no_key_of_another_kind() -> None:
    for key in (
        "change-this-to-a-random-key-min-32-chars",
        "your-encryption-key-minimum-32-characters",
        "-----BEGIN PRIVATE KEY----- and more",
    ):
        assert paths({"credentials": {"encryption_key": key}}) == ["credentials.encryption_key"]


# --- the rest


@pytest.mark.parametrize(
    ("basic", "wrong"),
    [
        ({"enabled": True}, []),  # the app knows its users itself
        ({"enabled": True, "username": "a"}, ["password"]),
        ({"enabled": True, "password": "p"}, ["username"]),
        (
            {"enabled": True, "username": "a", "password": "p", "password_hash": HASH},
            ["password_hash"],
        ),
        ({"enabled": True, "username": "admin", "password": "changeme"}, ["password"]),
        ({"enabled": True, "username": "a", "password": ""}, ["password"]),
        ({"enabled": True, "username": "a", "password": "p"}, []),
        ({"enabled": True, "username": "a", "password_hash": HASH}, []),
        ({"enabled": True, "username": "a", "password_hash": "h"}, ["password_hash"]),
        ({"enabled": True, "username": "a", "password_hash": "md5$x$00"}, ["password_hash"]),
        ({"enabled": False, "username": "admin", "password": "changeme"}, []),
    ],
)
def test_basic_needs_a_name_and_one_password(basic: dict[str, Any], wrong: list[str]) -> None:
    expected = [f"security.basic_auth.{name}" for name in wrong]
    assert paths({"security": {"basic_auth": basic}}) == expected


def test_tls_needs_both_files_which_need_not_exist() -> None:
    assert paths({"server": {"tls": {"enabled": True, "cert_file": "/none"}}}) == [
        "server.tls.key_file"
    ]
    files = {"cert_file": "/none", "key_file": "/none"}
    assert paths({"server": {"tls": {"enabled": True, **files}}}) == []


def test_redis_needs_a_url() -> None:
    limit: dict[str, Any] = {"storage": "redis"}
    assert paths({"performance": {"rate_limit": limit}}) == ["performance.rate_limit.redis_url"]
    limit["redis_url"] = "redis://localhost"
    assert paths({"performance": {"rate_limit": limit}}) == []


def test_nothing_may_be_staler_than_it_has_to_be() -> None:
    revocation = {"propagation": "10s", "max_staleness": "5s"}
    assert paths({"security": {"revocation": revocation}}) == ["security.revocation.max_staleness"]


def test_what_cannot_be_read_is_reported_once_beside_all_else(problems: Problems) -> None:
    found = problems(
        {
            "security": {
                "jwt": {"enabled": True, "secret": 5, "expiration": "soon"},
                "basic_auth": {"enabled": True, "username": 5},
                "unknown": {},
            },
            "server": {"tls": {"enabled": True, "cert_file": "${UNSET}"}, "port": "x"},
        }
    )
    assert [problem.path for problem in found] == [
        "security.basic_auth.username",
        "security.jwt.expiration",
        "security.jwt.secret",
        "security.unknown",
        "server.port",
        "server.tls.cert_file",
        "server.tls.key_file",
    ]


def test_doubts_are_warnings(loading: Load) -> None:
    (warning,) = loading({"database": {"type": "postgres"}}).warnings
    assert "database.postgres.url" in warning
    url = {"type": "postgres", "postgres": {"url": "postgres://db/m9m"}}
    assert loading({"database": url}).warnings == ()
    (warning,) = loading({"security": {"cors": {"allowed_headers": ["*"]}}}).warnings
    assert "Authorization" in warning


@pytest.mark.parametrize("path", [("server", "port"), ("security", "jwt", "algorithm")])
def test_what_a_setting_refers_to_is_not_shown(
    problems: Problems, path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFERRED", "do-not-show")
    given: object = "${REFERRED}"
    for name in reversed(path):
        given = {name: given}
    (problem,) = problems(given)
    assert problem.path == ".".join(path)
    assert "do-not-show" not in str(problem)
