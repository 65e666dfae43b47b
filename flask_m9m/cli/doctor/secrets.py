"""Checks of secrets: weak, reused, stretched, missing, or written in plain text."""

from __future__ import annotations

from collections.abc import Iterator

from ...credentials.encryption.encryption_keys import EncryptionKey
from .entropy import LEAST_BITS, guessing_bits
from .findings import Finding, Kind, Severity
from .secret_sources import secret_sources
from .subject import Subject, finds

WEAK = Kind(
    "secret-weak",
    Severity.HIGH,
    "the secret that signs tokens has less entropy than a random secret",
    "the token secret is not random (at most <bits> bits, judging by its text): an attacker who "
    "has one token can find the secret offline, and sign tokens for any user (RFC 8725 §3.5; ASVS "
    "11.5.1: 128 bits from a CSPRNG)",
    "remove the old value from its source, then: flask m9m secret --bytes 64 --add M9M_JWT_SECRET; "
    "users then have to log in again",
)
WEAK_PREVIOUS = Kind(
    "previous-secret-weak",
    Severity.HIGH,
    "a previous secret, which still verifies tokens, has less entropy than a random secret",
    "a previous secret is not random (at most <bits> bits, judging by its text): an attacker who "
    "finds it can sign tokens that are still accepted (RFC 8725 §3.5; ASVS 11.5.1)",
    "remove it from security.jwt.previous_secrets; users whose tokens it signed have to log in "
    "again",
)
WEAK_KEY = Kind(
    "encryption-key-weak",
    Severity.HIGH,
    "an encryption key has less entropy than a random key",
    "the encryption key is not random (at most <bits> bits, judging by its text): an attacker who "
    "has a copy of the database can find the key offline, and decrypt the credentials (ASVS "
    "11.5.1: 128 bits from a CSPRNG)",
    "move the key to credentials.previous_keys, then: flask m9m secret --add M9M_ENCRYPTION_KEY && "
    "flask m9m credential rotate; then remove it from credentials.previous_keys",
)
WEAK_PREVIOUS_KEY = Kind(
    "previous-key-weak",
    Severity.HIGH,
    "a previous encryption key has less entropy than a random key",
    "a previous encryption key is not random (at most <bits> bits, judging by its text): an "
    "attacker who has a copy of the database can find it offline, and decrypt what is still "
    "encrypted with it (ASVS 11.5.1)",
    "flask m9m credential rotate; then remove the key from credentials.previous_keys",
)
WEAK_SESSION_KEY = Kind(
    "session-key-weak",
    Severity.HIGH,
    "app.secret_key has less entropy than a random key",
    "app.secret_key is not random (at most <bits> bits, judging by its text): an attacker who has "
    "one session cookie can find the key offline, and forge session cookies (ASVS 11.5.1)",
    "flask m9m secret --add FLASK_SECRET_KEY; then load it with app.config.from_prefixed_env(), in "
    "place of the old key",
)
REUSED = Kind(
    "secret-reused",
    Severity.HIGH,
    "the same text is the secret of two purposes",
    "the same text is the secret of two purposes: an attacker who learns it in one place can use "
    "it in the other (RFC 8725 §3.5; ASVS 13.3.2)",
    "give each purpose its own secret, which this prints: flask m9m secret; remove a previous "
    "secret that is also app.secret_key once the tokens that it signed have expired",
)
SHORT_PASSWORD = Kind(
    "password-short",
    Severity.LOW,
    "the configured user's password has fewer than 15 characters",
    "the password of the configured user is shorter than the 15 characters that ASVS 6.2.1 "
    "recommends: an attacker may guess it",
    "remove the old value from its source, then: flask m9m secret --add "
    "M9M_SECURITY_BASIC_AUTH_PASSWORD",
)
STRETCHED = Kind(
    "encryption-key-stretched",
    Severity.LOW,
    "the encryption key is a text that is stretched, not 32 random bytes",
    "the encryption key is a text, stretched with the same salt in every app: only the text itself "
    "resists guessing (ASVS 11.5.1)",
    "move the key to credentials.previous_keys, then: flask m9m secret --add M9M_ENCRYPTION_KEY && "
    "flask m9m credential rotate",
)
IN_PLAIN = Kind(
    "secret-in-plain",
    Severity.LOW,
    "a secret is written in the configuration file or in the code",
    "the secret is written in the configuration file or in the code, and leaks with every copy of "
    "it: version control, images, backups (ASVS 13.3.1)",
    'set <path> to "${<variable>}", and put <variable> into the environment or .env',
)
NO_JWT_SECRET = Kind(
    "jwt-secret-missing",
    Severity.MEDIUM,
    "routes accept tokens, but there is no secret to verify them",
    "there is no secret to verify tokens: nobody can log in or use a token, and routes refuse "
    "everyone without an API key",
    "flask m9m init; if there is an .env already: flask m9m secret --bytes 64 --add "
    "M9M_JWT_SECRET; to do without tokens: security: {jwt: {enabled: false}}",
)
NO_ENCRYPTION_KEY = Kind(
    "encryption-key-missing",
    Severity.MEDIUM,
    "the REST API offers stored credentials, but there is no key to encrypt them",
    "there is no key to encrypt stored credentials: requests to /credentials fail (ASVS 11.3.1 "
    "requires an approved cipher, which needs a key)",
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
    "credentials.previous_keys": WEAK_PREVIOUS_KEY,
}


@finds(WEAK, WEAK_PREVIOUS, WEAK_KEY, WEAK_PREVIOUS_KEY, WEAK_SESSION_KEY)
def weak_secrets(subject: Subject) -> Iterator[Finding]:
    """Estimate the entropy of each secret, and of the key that signs Flask's sessions."""
    for source in secret_sources(subject):
        if source.path in _WEAK:
            bits = min(map(guessing_bits, source.values))
            if bits < LEAST_BITS:
                yield _WEAK[source.path].at(subject.at(source.path), bits=int(bits))
    for text in _session_keys(subject)[:1]:
        if (bits := guessing_bits(text)) < LEAST_BITS:
            yield WEAK_SESSION_KEY.at("app.secret_key", bits=int(bits))


@finds(REUSED)
def reused_secrets(subject: Subject) -> Iterator[Finding]:
    """Find a text that is the secret of two purposes."""
    places: dict[str, list[str]] = {}
    for source in secret_sources(subject):
        for value in source.values:
            places.setdefault(value, []).append(source.path)
    for text in _session_keys(subject):
        places.setdefault(text, []).append("app.secret_key")
    for paths in places.values():
        if len(set(paths)) > 1:
            yield REUSED.at(" and ".join(dict.fromkeys(paths)))


@finds(SHORT_PASSWORD)
def short_passwords(subject: Subject) -> Iterator[Finding]:
    """Measure the length of the configured user's password."""
    basic = subject.settings.security.basic_auth
    if basic.enabled and basic.password is not None and len(basic.password.get_secret_value()) < 15:
        yield SHORT_PASSWORD.at(subject.at("security.basic_auth.password"))


@finds(STRETCHED)
def stretched_keys(subject: Subject) -> Iterator[Finding]:
    """Examine whether the encryption key is text or random bytes."""
    key = subject.settings.credentials.encryption_key
    if key is not None and not EncryptionKey(key.get_secret_value()).is_stretched:
        yield STRETCHED.at(subject.at("credentials.encryption_key"))


@finds(IN_PLAIN)
def secrets_in_plain(subject: Subject) -> Iterator[Finding]:
    """Find secrets that are written in the configuration file or in the code."""
    for source in secret_sources(subject):
        if source.plain:
            where = subject.at(source.path)
            yield IN_PLAIN.at(where, path=source.path, variable=_variable(source.path))


@finds(NO_JWT_SECRET, NO_ENCRYPTION_KEY)
def missing_secrets(subject: Subject) -> Iterator[Finding]:
    """Find features that are on, but lack their secret."""
    settings = subject.settings
    jwt = settings.security.jwt
    if jwt.secret is None and jwt.enabled is not False and not settings.development.enabled:
        needing = [route for route in subject.routes if route.policy.authenticators]
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
    return [key if isinstance(key, str) else key.decode("latin-1") for key in keys if key]


def _variable(path: str) -> str:
    return _VARIABLES.get(path, "M9M_" + path.upper().replace(".", "_"))
