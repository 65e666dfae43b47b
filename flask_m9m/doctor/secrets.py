"""Checks of secrets: what they are, where they lie, and who can read them."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..crypto.keys import EncryptionKey
from .entropy import LEAST_BITS, guessing_bits
from .findings import Finding, Kind, Severity
from .secret_sources import Origin, secret_origins
from .subject import Subject, finds

WEAK = Kind(
    "secret-weak",
    Severity.HIGH,
    "the secret that signs tokens has less entropy than a random one",
    "whoever sees one token can try secrets offline until the signature fits (RFC 8725 §3.5, "
    "ASVS 11.5.1: 128 bits of a CSPRNG); of this one at most <bits> bits can be told",
    'echo "M9M_JWT_SECRET=$(flask m9m secret --bytes 64)" >> .env, and remove the old one',
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
    "move it to credentials.previous_keys, "
    'echo "M9M_ENCRYPTION_KEY=$(flask m9m secret)" >> .env, then: flask m9m credential rotate',
)
WEAK_SESSION_KEY = Kind(
    "session-key-weak",
    Severity.HIGH,
    "app.secret_key has less entropy than a random one",
    "whoever has one session cookie can try keys offline, and write cookies then (ASVS 11.5.1); of "
    "this one at most <bits> bits can be told",
    'echo "FLASK_SECRET_KEY=$(flask m9m secret)" >> .env, and app.config.from_prefixed_env()',
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
    'echo "M9M_SECURITY_BASIC_AUTH_PASSWORD=$(flask m9m secret)" >> .env, and remove the old one',
)
OLD = Kind(
    "secret-old",
    Severity.LOW,
    "a file that holds secrets has not changed for a year",
    "a secret that never changes is known to everybody who ever had it (ASVS 13.3.4)",
    "list <path> in <previous> and put a fresh one in its place (flask m9m secret); "
    "for stored credentials: flask m9m credential rotate",
)
STRETCHED = Kind(
    "encryption-key-stretched",
    Severity.LOW,
    "an encryption key is text that is stretched, not 32 random bytes",
    "the salt is the same everywhere, so the text alone has to resist guessing (ASVS 11.5.1)",
    "move it to credentials.previous_keys, "
    'echo "M9M_ENCRYPTION_KEY=$(flask m9m secret)" >> .env, then: flask m9m credential rotate',
)
TRACKED = Kind(
    "secret-tracked",
    Severity.HIGH,
    "git tracks a file that holds secrets",
    "everybody who has the repository has them, also once they are deleted (ASVS 13.3.1)",
    "git rm --cached -- <file> && echo <file> >> .gitignore, then replace the secrets: they stay "
    "in the history",
)
IN_PLAIN = Kind(
    "secret-in-plain",
    Severity.LOW,
    "a secret stands in the configuration file or in the code",
    "it goes wherever that goes: version control, images, backups (ASVS 13.3.1)",
    '<path>: "${<variable>}", and <variable> in the environment or in .env',
)
READABLE = Kind(
    "secret-readable",
    Severity.MEDIUM,
    "other users of the machine can read or write a file that holds secrets",
    "each of them can sign tokens and open stored credentials (ASVS 13.3.2)",
    "chmod 600 <file>",
)
NO_JWT_SECRET = Kind(
    "jwt-secret-missing",
    Severity.MEDIUM,
    "routes accept tokens, and there is no secret to verify any",
    "nobody can log in or use a token: such routes refuse everyone without an API key",
    'flask m9m init; where there is an .env: echo "M9M_JWT_SECRET=$(flask m9m secret --bytes 64)" '
    ">> .env; without tokens: security: {jwt: {enabled: false}}",
)
NO_ENCRYPTION_KEY = Kind(
    "encryption-key-missing",
    Severity.MEDIUM,
    "the REST API offers stored credentials, and there is no key to encrypt any",
    "requests to /credentials fail (ASVS 11.3.1 asks for an approved cipher, which needs a key)",
    'echo "M9M_ENCRYPTION_KEY=$(flask m9m secret)" >> .env',
)

_YEAR = 365 * 86_400.0
_GIT_SECONDS = 2.0
_MOUNTED = (Path("/run/secrets"), Path("/var/run/secrets"))  # a container's own
_VARIABLES = {
    "security.jwt.secret": "M9M_JWT_SECRET",
    "credentials.encryption_key": "M9M_ENCRYPTION_KEY",
}
_PREVIOUS = {
    "security.jwt.secret": "security.jwt.previous_secrets",
    "credentials.encryption_key": "credentials.previous_keys",
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


@finds(OLD)
def old_secrets(subject: Subject) -> Iterator[Finding]:
    """Look when the file of each secret last changed."""
    for origin in secret_origins(subject):
        if origin.path in _PREVIOUS and origin.file is not None:
            status = _status(origin.file)
            if status is not None and subject.now - status.st_mtime > _YEAR:
                where = f"{origin.path} ({_shown(origin.file, subject)})"
                yield OLD.at(where, path=origin.path, previous=_PREVIOUS[origin.path])


@finds(STRETCHED)
def stretched_keys(subject: Subject) -> Iterator[Finding]:
    """Look at the form of the encryption key."""
    key = subject.settings.credentials.encryption_key
    if key is not None and not EncryptionKey(key.get_secret_value()).is_stretched:
        yield STRETCHED.at(subject.at("credentials.encryption_key"))


@finds(TRACKED)
def tracked_secrets(subject: Subject) -> Iterator[Finding]:
    """Ask git whether it tracks a file with secrets."""
    for file in _secret_files(subject):
        if _is_tracked(file):
            yield TRACKED.at(_shown(file, subject), file=_argument(file, subject))


@finds(IN_PLAIN)
def secrets_in_plain(subject: Subject) -> Iterator[Finding]:
    """Look for secrets that are written where settings are."""
    for origin in secret_origins(subject):
        if origin.plain:
            where = subject.at(origin.path)
            yield IN_PLAIN.at(where, path=origin.path, variable=_variable(origin.path))


@finds(READABLE)
def readable_secrets(subject: Subject) -> Iterator[Finding]:
    """Look who may read the files with secrets."""
    for file in _secret_files(subject):
        status = _status(file)
        if status is None or any(place in file.parents for place in _MOUNTED):
            continue
        if stat.S_IMODE(status.st_mode) & 0o006:
            yield READABLE.at(_shown(file, subject), file=_argument(file, subject))


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
    old_secrets,
    stretched_keys,
    tracked_secrets,
    secrets_in_plain,
    readable_secrets,
    missing_secrets,
)


def _session_keys(subject: Subject) -> list[str]:
    keys = [subject.app.secret_key, *(subject.app.config.get("SECRET_KEY_FALLBACKS") or ())]
    return [one if isinstance(one, str) else one.decode("latin-1") for one in keys if one]


def _secret_files(subject: Subject) -> Iterable[Path]:
    """Return the files that hold secrets, each once."""
    origins: list[Origin] = secret_origins(subject)
    return dict.fromkeys(one.file for one in origins if one.file is not None)


def _is_tracked(file: Path) -> bool:
    git = shutil.which("git")
    if git is None or not file.parent.is_dir():
        return False
    command = [git, "-C", str(file.parent), "ls-files", "--error-unmatch", "--", file.name]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_SECONDS)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _status(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None


def _shown(file: Path, subject: Subject) -> str:
    return str(file.relative_to(subject.folder) if file.is_relative_to(subject.folder) else file)


def _argument(file: Path, subject: Subject) -> str:
    return shlex.quote(_shown(file, subject))


def _variable(path: str) -> str:
    return _VARIABLES.get(path, "M9M_" + path.upper().replace(".", "_"))
