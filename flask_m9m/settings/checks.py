"""Checks across settings, and of unusable secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import SecretStr

from ..errors import Problem
from .models import BasicAuthSettings, Settings
from .redis_url import check_url
from .secrets import KEY_FORMS, is_asymmetric_key, is_placeholder, key_material
from .wording import describe_secret

_INIT = "run: flask m9m init"
_PASSWORD_HASH = re.compile(
    r"(scrypt:[0-9]{1,9}:[0-9]{1,3}:[0-9]{1,3}|pbkdf2:sha(256|512):[0-9]{1,9})"
    r"\$[^$]+\$[0-9a-f]{64,128}"
)
_RANDOM_TEXT_COMMAND = "flask m9m secret --bytes"
_KEY_RULE = f"must be {KEY_FORMS}"
_LIMIT_SECRET_BYTES = 32
_FRESH_SECRET = f"must be random text used for nothing else (to make it: {_RANDOM_TEXT_COMMAND} 64)"


def check(settings: Settings) -> list[Problem]:
    """Check settings against each other, and their secrets for strength and form.

    Args:
        settings: settings whose single values are valid.

    Returns:
        The problems that stop the start, each with the path of the setting to change.
    """
    return [
        *_check_signing(settings),
        *_check_encryption(settings),
        *_check_basic_auth(settings.security.basic_auth),
        *_check_server(settings),
        *_check_audit(settings),
    ]


def check_secret_key(settings: Settings, secret_key: str | bytes | None) -> list[Problem]:
    """Check that the JWT secret differs from `app.secret_key`.

    The secret that signs tokens must not also sign Flask's sessions. An entry of
    `previous_secrets` may, so that an app can move from Flask-JWT-Extended.

    Args:
        settings: the app's settings.
        secret_key: the value of `app.secret_key`.

    Returns:
        One problem where the two are equal, otherwise none.
    """
    jwt = settings.security.jwt
    if jwt.secret is None or jwt.enabled is False or not secret_key:
        return []
    other = secret_key if isinstance(secret_key, bytes) else _to_bytes(secret_key)
    if _to_bytes(jwt.secret.get_secret_value()) != other:
        return []
    return [Problem("security.jwt.secret", "the same as app.secret_key", _FRESH_SECRET)]


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _check_signing(settings: Settings) -> Iterator[Problem]:
    jwt = settings.security.jwt
    path = "security.jwt.secret"
    jwt_users = {
        "security.jwt.enabled": jwt.enabled,
        "security.jwt.cookie.enabled": jwt.cookie.enabled,
        "api.enabled": settings.api.enabled,
    }
    switched_on = [name for name, on in jwt_users.items() if on]
    if jwt.enabled is False:
        for name in switched_on:
            yield Problem(
                name,
                "true, but security.jwt.enabled is false",
                "set both to true, or both to false",
            )
        return
    if jwt.secret is None:
        if switched_on and not settings.development.enabled:
            accepted = f"set M9M_JWT_SECRET ({_INIT}), or set {switched_on[0]} to false"
            yield Problem(path, f"not set, but {switched_on[0]} is true", accepted)
    else:
        yield from _check_secret(path, jwt.secret, jwt.algorithm.secret_bytes)
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
        yield from _check_secret(entry, previous, jwt.algorithm.secret_bytes)
        if text in known:
            accepted = "remove it: it is security.jwt.secret, or listed before"
            yield Problem(entry, "a secret that is listed already", accepted)
        if key_material(text) in keys:
            yield Problem(entry, "the same as an encryption key", "remove it")
        known.add(text)


def _check_secret(path: str, secret: SecretStr, shortest: int) -> Iterator[Problem]:
    text = secret.get_secret_value()
    if is_placeholder(text):
        yield Problem(path, "a placeholder", _FRESH_SECRET)
    elif is_asymmetric_key(text):
        yield Problem(path, "a key in PEM, SSH, JWK or DER form", _FRESH_SECRET)
    elif len(_to_bytes(text)) < shortest:
        command = f"to make it: {_RANDOM_TEXT_COMMAND} {shortest}"
        accepted = f"must be at least {shortest} bytes of random text (RFC 7518 §3.2; {command})"
        yield Problem(path, describe_secret(secret), accepted)


def _check_encryption(settings: Settings) -> Iterator[Problem]:
    credentials = settings.credentials
    keys = [("credentials.encryption_key", credentials.encryption_key)]
    for index, key in enumerate(credentials.previous_keys):
        keys.append((f"credentials.previous_keys[{index}]", key))
    known = set()
    for path, secret in keys:
        if secret is None:
            continue
        text = secret.get_secret_value()
        if is_placeholder(text):
            yield Problem(path, "a placeholder", f"{_KEY_RULE} (to make it: flask m9m secret)")
        elif is_asymmetric_key(text):
            yield Problem(path, "a key in PEM, SSH, JWK or DER form", _KEY_RULE)
        elif len(text) < 32:
            yield Problem(path, describe_secret(secret), _KEY_RULE)
        material = key_material(text)
        if material in known:
            yield Problem(path, "a key that is listed already", "list each key once")
        known.add(material)


def _check_basic_auth(basic: BasicAuthSettings) -> Iterator[Problem]:
    section = "security.basic_auth"
    if not basic.enabled:
        return
    has_password = basic.password is not None or basic.password_hash is not None
    if basic.username is None and has_password:
        yield Problem(f"{section}.username", "not set, but a password is", "set it")
    if basic.username is not None and not has_password:
        accepted = f"set it, or set {section}.password_hash"
        yield Problem(f"{section}.password", "not set, but the user name is", accepted)
    hashed = basic.password_hash
    if hashed is not None and not _PASSWORD_HASH.fullmatch(hashed.get_secret_value()):
        accepted = "must be a hash made by werkzeug.security.generate_password_hash"
        yield Problem(f"{section}.password_hash", describe_secret(hashed), accepted)
    if basic.password is None:
        return
    if basic.password_hash is not None:
        accepted = f"remove this or {section}.password"
        yield Problem(f"{section}.password_hash", "set in addition to the password", accepted)
    if basic.password.get_secret_value() == "" or is_placeholder(basic.password.get_secret_value()):
        yield Problem(f"{section}.password", "empty or a placeholder", "choose another password")


def _check_server(settings: Settings) -> Iterator[Problem]:
    tls, limit = settings.server.tls, settings.performance.rate_limit
    revocation = settings.security.revocation
    if tls.enabled:
        for name in ("cert_file", "key_file"):
            if getattr(tls, name) is None:
                accepted = "name a PEM file, or set server.tls.enabled to false"
                yield Problem(
                    f"server.tls.{name}", "not set, but server.tls.enabled is true", accepted
                )
    if limit.redis_url is not None:
        try:
            check_url(limit.redis_url.get_secret_value())
        except ValueError as error:
            yield Problem("performance.rate_limit.redis_url", "not a valid Redis URL", str(error))
    elif limit.storage == "redis":
        yield Problem(
            "performance.rate_limit.redis_url",
            "not set, but performance.rate_limit.storage is redis",
            'set it, for example to "redis://localhost:6379/0"',
        )
    if limit.secret is not None:
        yield from _check_secret("performance.rate_limit.secret", limit.secret, _LIMIT_SECRET_BYTES)
    if revocation.max_staleness < revocation.propagation:
        yield Problem(
            "security.revocation.max_staleness",
            f"{revocation.max_staleness:g} seconds",
            f"must be at least security.revocation.propagation: {revocation.propagation:g} seconds",
        )


def _check_audit(settings: Settings) -> Iterator[Problem]:
    audit = settings.audit
    if audit.enabled and "database" in audit.sinks and settings.credentials.encryption_key is None:
        found = "database, which needs credentials.encryption_key, and that is not set"
        yield Problem("audit.sinks", found, f"set M9M_ENCRYPTION_KEY ({_INIT}), or remove database")
