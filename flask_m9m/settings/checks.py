"""Contradictions: values that are right alone and wrong together, and secrets that are none."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import SecretStr

from ..errors import Problem
from .models import BasicAuthSettings, Settings
from .redis_url import check_url
from .secrets import KEY_FORMS, is_asymmetric_key, is_placeholder, key_material
from .wording import secret_found

_INIT = "run: flask m9m init"
_PASSWORD_HASH = re.compile(
    r"(scrypt:[0-9]{1,9}:[0-9]{1,3}:[0-9]{1,3}|pbkdf2:sha(256|512):[0-9]{1,9})"
    r"\$[^$]+\$[0-9a-f]{64,128}"
)
_PRINTED = "flask m9m secret --bytes"
_FRESH_SECRET = f"random text of its own ({_PRINTED} 64 prints one)"


def check(settings: Settings) -> list[Problem]:
    """Return what stops a start with these settings, each problem at the path to change."""
    return [
        *_signing(settings),
        *_encryption(settings),
        *_basic_auth(settings.security.basic_auth),
        *_serving(settings),
        *_audit(settings),
    ]


def check_secret_key(settings: Settings, secret_key: str | bytes | None) -> list[Problem]:
    """Return what is wrong about `app.secret_key` beside the settings.

    The secret that signs tokens must not also sign sessions. An entry of `previous_secrets` may:
    that is how an app moves over from Flask-JWT-Extended.
    """
    jwt = settings.security.jwt
    if jwt.secret is None or jwt.enabled is False or not secret_key:
        return []
    other = secret_key if isinstance(secret_key, bytes) else _octets(secret_key)
    if _octets(jwt.secret.get_secret_value()) != other:
        return []
    return [Problem("security.jwt.secret", "the same as app.secret_key", _FRESH_SECRET)]


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _signing(settings: Settings) -> Iterator[Problem]:
    jwt = settings.security.jwt
    path = "security.jwt.secret"
    needing = {
        "security.jwt.enabled": jwt.enabled,
        "security.jwt.cookie.enabled": jwt.cookie.enabled,
        "api.enabled": settings.api.enabled,
    }
    switched_on = [name for name, on in needing.items() if on]
    if jwt.enabled is False:
        for name in switched_on:
            yield Problem(name, "true, while security.jwt.enabled is false", "false")
        return
    if jwt.secret is None:
        if switched_on and not settings.development.enabled:
            accepted = f"set M9M_JWT_SECRET ({_INIT}), or {switched_on[0]}: false"
            yield Problem(path, f"no secret, while {switched_on[0]} is true", accepted)
    else:
        yield from _one_secret(path, jwt.secret, jwt.algorithm.secret_bytes)
    credentials = settings.credentials
    keys = {
        key_material(key.get_secret_value())
        for key in (credentials.encryption_key, *credentials.previous_keys)
        if key is not None
    }
    known = {jwt.secret.get_secret_value()} if jwt.secret is not None else set()
    if jwt.secret is not None and key_material(jwt.secret.get_secret_value()) in keys:
        yield Problem(path, "the same as an encryption key", _FRESH_SECRET)
    for index, previous in enumerate(jwt.previous_secrets):
        entry = f"security.jwt.previous_secrets[{index}]"
        text = previous.get_secret_value()
        yield from _one_secret(entry, previous, jwt.algorithm.secret_bytes)
        if text in known:
            yield Problem(entry, "a secret that is listed already", "list each secret once")
        if key_material(text) in keys:
            yield Problem(entry, "the same as an encryption key", "remove it")
        known.add(text)


def _one_secret(path: str, secret: SecretStr, shortest: int) -> Iterator[Problem]:
    text = secret.get_secret_value()
    if is_placeholder(text):
        yield Problem(path, "a placeholder", _FRESH_SECRET)
    elif is_asymmetric_key(text):
        yield Problem(path, "a key in PEM, SSH, JWK or DER form", _FRESH_SECRET)
    elif len(_octets(text)) < shortest:
        fresh = f"{_PRINTED} {shortest} prints one"
        accepted = f"at least {shortest} bytes of random text (RFC 7518 §3.2; {fresh})"
        yield Problem(path, secret_found(secret), accepted)


def _encryption(settings: Settings) -> Iterator[Problem]:
    credentials = settings.credentials
    named = [("credentials.encryption_key", credentials.encryption_key)]
    for index, key in enumerate(credentials.previous_keys):
        named.append((f"credentials.previous_keys[{index}]", key))
    known = set()
    for path, secret in named:
        if secret is None:
            continue
        text = secret.get_secret_value()
        if is_placeholder(text):
            yield Problem(path, "a placeholder", f"{KEY_FORMS} (flask m9m secret prints one)")
        elif is_asymmetric_key(text):
            yield Problem(path, "a key in PEM, SSH, JWK or DER form", KEY_FORMS)
        elif len(text) < 32:
            yield Problem(path, secret_found(secret), KEY_FORMS)
        material = key_material(text)
        if material in known:
            yield Problem(path, "a key that is listed already", "list each key once")
        known.add(material)


def _basic_auth(basic: BasicAuthSettings) -> Iterator[Problem]:
    section = "security.basic_auth"
    if not basic.enabled:
        return
    has_password = basic.password is not None or basic.password_hash is not None
    if basic.username is None and has_password:
        yield Problem(f"{section}.username", "none, while there is a password", "set it")
    if basic.username is not None and not has_password:
        accepted = f"set it, or {section}.password_hash"
        yield Problem(f"{section}.password", "none, while there is a user name", accepted)
    hashed = basic.password_hash
    if hashed is not None and not _PASSWORD_HASH.fullmatch(hashed.get_secret_value()):
        accepted = "what werkzeug.security.generate_password_hash returns"
        yield Problem(f"{section}.password_hash", secret_found(hashed), accepted)
    if basic.password is None:
        return
    if basic.password_hash is not None:
        accepted = f"keep one of it and {section}.password"
        yield Problem(f"{section}.password_hash", "two passwords of one user", accepted)
    if basic.password.get_secret_value() == "" or is_placeholder(basic.password.get_secret_value()):
        yield Problem(f"{section}.password", "a placeholder", "a password of its own")


def _serving(settings: Settings) -> Iterator[Problem]:
    tls, limit = settings.server.tls, settings.performance.rate_limit
    revocation = settings.security.revocation
    if tls.enabled:
        for name in ("cert_file", "key_file"):
            if getattr(tls, name) is None:
                accepted = "name a PEM file, or server.tls.enabled: false"
                yield Problem(f"server.tls.{name}", "none, while TLS is enabled", accepted)
    if limit.redis_url is not None:
        try:
            check_url(limit.redis_url.get_secret_value())
        except ValueError as error:
            yield Problem("performance.rate_limit.redis_url", "no Redis URL", str(error))
    elif limit.storage == "redis":
        yield Problem(
            "performance.rate_limit.redis_url",
            "none, while performance.rate_limit.storage is redis",
            'set it, such as "redis://localhost:6379/0"',
        )
    if revocation.max_staleness < revocation.propagation:
        yield Problem(
            "security.revocation.max_staleness",
            f"{revocation.max_staleness:g} seconds",
            f"at least security.revocation.propagation, {revocation.propagation:g} seconds",
        )


def _audit(settings: Settings) -> Iterator[Problem]:
    audit = settings.audit
    if audit.enabled and "database" in audit.sinks and settings.credentials.encryption_key is None:
        found = "database, while there is no credentials.encryption_key to chain its rows under"
        yield Problem("audit.sinks", found, f"set M9M_ENCRYPTION_KEY ({_INIT}), or leave it out")
