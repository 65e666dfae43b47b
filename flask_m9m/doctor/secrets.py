"""Checks of secrets: what they are, and where they stand."""

from __future__ import annotations

from collections.abc import Iterator

from ..crypto.keys import EncryptionKey
from .entropy import LEAST_BITS, guessing_bits
from .findings import Finding, Kind, Severity
from .secret_sources import secret_origins
from .subject import Subject, finds

WEAK = Kind(
    "secret-weak",
    Severity.HIGH,
    "the secret that signs tokens has less entropy than a random one",
    "whoever sees one token can try secrets offline until the signature fits (RFC 8725 §3.5, "
    "ASVS 11.5.1: 128 bits of a CSPRNG); of this one at most <bits> bits can be told",
    "remove it where it stands, then: flask m9m secret --bytes 64 --add M9M_JWT_SECRET",
)
WEAK_PREVIOUS = Kind(
    "previous-secret-weak",
    Severity.HIGH,
    "a previous secret, with which tokens are still verified, has less entropy than a random one",
    "whoever guesses it signs tokens that are accepted (RFC 8725 §3.5; ASVS 11.5.1); at most "
    "<bits> bits of it can be told",
    "remove it from security.jwt.previous_secrets; those whose tokens it signed log in again",
)
WEAK_KEY = Kind(
    "encryption-key-weak",
    Severity.HIGH,
    "an encryption key has less entropy than a random one",
    "whoever has a copy of the database can try keys offline (ASVS 11.5.1: 128 bits of a CSPRNG); "
    "of this one at most <bits> bits can be told",
    "move it to credentials.previous_keys, then: flask m9m secret --add M9M_ENCRYPTION_KEY && "
    "flask m9m credential rotate",
)
WEAK_SESSION_KEY = Kind(
    "session-key-weak",
    Severity.HIGH,
    "app.secret_key has less entropy than a random one",
    "whoever has one session cookie can try keys offline, and write cookies then (ASVS 11.5.1); of "
    "this one at most <bits> bits can be told",
    "flask m9m secret --add FLASK_SECRET_KEY, and app.config.from_prefixed_env() in its place",
)
REUSED = Kind(
    "secret-reused",
    Severity.HIGH,
    "one text is the secret of two purposes",
    "what leaks or is guessed in one place opens the other (RFC 8725 §3.5; ASVS 13.3.2)",
    "give each its own: flask m9m secret prints one; a previous secret that is also "
    "app.secret_key goes once the tokens signed with it have expired",
)
SHORT_PASSWORD = Kind(
    "password-short",
    Severity.LOW,
    "the configured user's password has fewer than 15 characters",
    "it can be guessed: ASVS 6.2.1 recommends at least 15 characters",
    "remove it where it stands, then: flask m9m secret --add M9M_SECURITY_BASIC_AUTH_PASSWORD",
)
STRETCHED = Kind(
    "encryption-key-stretched",
    Severity.LOW,
    "an encryption key is text that is stretched, not 32 random bytes",
    "the salt is the same everywhere, so the text alone has to resist guessing (ASVS 11.5.1)",
    "move it to credentials.previous_keys, then: flask m9m secret --add M9M_ENCRYPTION_KEY && "
    "flask m9m credential rotate",
)
IN_PLAIN = Kind(
    "secret-in-plain",
    Severity.LOW,
    "a secret stands in the configuration file or in the code",
    "it goes wherever that goes: version control, images, backups (ASVS 13.3.1)",
    '<path>: "${<variable>}", and <variable> in the environment or in .env',
)
NO_JWT_SECRET = Kind(
    "jwt-secret-missing",
    Severity.MEDIUM,
    "routes accept tokens, and there is no secret to verify any",
    "nobody can log in or use a token: such routes refuse everyone without an API key",
    "flask m9m init; where there is an .env: flask m9m secret --bytes 64 --add M9M_JWT_SECRET; "
    "without tokens: security: {jwt: {enabled: false}}",
)
NO_ENCRYPTION_KEY = Kind(
    "encryption-key-missing",
    Severity.MEDIUM,
    "the REST API offers stored credentials, and there is no key to encrypt any",
    "requests to /credentials fail (ASVS 11.3.1 asks for an approved cipher, which needs a key)",
    "flask m9m secret --add M9M_ENCRYPTION_KEY",
)

_VARIABLES = {
    "security.jwt.secret": "M9M_JWT_SECRET",
    "credentials.encryption_key": "M9M_ENCRYPTION_KEY",
}
_WEAK = {
    "security.jwt.secret": WEAK,
    "security.jwt.previous_secrets": WEAK_PREVIOUS,
    "credentials.encryption_key": WEAK_KEY,
    "credentials.previous_keys": WEAK_KEY,
}


@finds(WEAK, WEAK_PREVIOUS, WEAK_KEY, WEAK_SESSION_KEY)
def weak_secrets(subject: Subject) -> Iterator[Finding]:
    """Look at the text of each secret, and of the key that signs Flask's sessions."""
    for origin in secret_origins(subject):
        if origin.path in _WEAK:
            bits = min(map(guessing_bits, origin.values))
            if bits < LEAST_BITS:
                yield _WEAK[origin.path].at(subject.at(origin.path), bits=int(bits))
    for text in _session_keys(subject)[:1]:
        if (bits := guessing_bits(text)) < LEAST_BITS:
            yield WEAK_SESSION_KEY.at("app.secret_key", bits=int(bits))


@finds(REUSED)
def reused_secrets(subject: Subject) -> Iterator[Finding]:
    """Look for one text in two places."""
    places: dict[str, list[str]] = {}
    for origin in secret_origins(subject):
        for value in origin.values:
            places.setdefault(value, []).append(origin.path)
    for text in _session_keys(subject):
        places.setdefault(text, []).append("app.secret_key")
    for paths in places.values():
        if len(set(paths)) > 1:
            yield REUSED.at(" and ".join(dict.fromkeys(paths)))


@finds(SHORT_PASSWORD)
def short_passwords(subject: Subject) -> Iterator[Finding]:
    """Look at the configured user's password."""
    basic = subject.settings.security.basic_auth
    if basic.enabled and basic.password is not None and len(basic.password.get_secret_value()) < 15:
        yield SHORT_PASSWORD.at(subject.at("security.basic_auth.password"))


@finds(STRETCHED)
def stretched_keys(subject: Subject) -> Iterator[Finding]:
    """Look at the form of the encryption key."""
    key = subject.settings.credentials.encryption_key
    if key is not None and not EncryptionKey(key.get_secret_value()).is_stretched:
        yield STRETCHED.at(subject.at("credentials.encryption_key"))


@finds(IN_PLAIN)
def secrets_in_plain(subject: Subject) -> Iterator[Finding]:
    """Look for secrets that are written where settings are."""
    for origin in secret_origins(subject):
        if origin.plain:
            where = subject.at(origin.path)
            yield IN_PLAIN.at(where, path=origin.path, variable=_variable(origin.path))


@finds(NO_JWT_SECRET, NO_ENCRYPTION_KEY)
def missing_secrets(subject: Subject) -> Iterator[Finding]:
    """Look for what cannot work without a secret."""
    settings = subject.settings
    jwt = settings.security.jwt
    if jwt.secret is None and jwt.enabled is not False and not settings.development.enabled:
        needing = [one for one in subject.routes if one.policy.authenticators]
        if needing:
            yield NO_JWT_SECRET.at("security.jwt.secret")
    if settings.api.enabled and settings.credentials.encryption_key is None:
        yield NO_ENCRYPTION_KEY.at("credentials.encryption_key")


CHECKS = (
    weak_secrets,
    reused_secrets,
    short_passwords,
    stretched_keys,
    secrets_in_plain,
    missing_secrets,
)


def _session_keys(subject: Subject) -> list[str]:
    keys = [subject.app.secret_key, *(subject.app.config.get("SECRET_KEY_FALLBACKS") or ())]
    return [one if isinstance(one, str) else one.decode("latin-1") for one in keys if one]


def _variable(path: str) -> str:
    return _VARIABLES.get(path, "M9M_" + path.upper().replace(".", "_"))
