"""Checks of what is kept: API keys, and the keys of stored credentials."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta

from ..crypto.keys import EncryptionKey
from ..storage import ApiKey, moment
from .backends import Kept, Unreachable
from .findings import Finding, Kind, Severity
from .subject import Subject, finds

UNUSED = Kind(
    "key-unused",
    Severity.LOW,
    "an API key was not used for 90 days",
    "nobody would miss it, nor notice that somebody else uses it (ASVS 13.3.4)",
    "flask m9m apikey revoke <id>",
)
WITHOUT_EXPIRY = Kind(
    "key-without-expiry",
    Severity.LOW,
    "an API key never expires",
    "once stolen it works until somebody notices (ASVS 13.3.4)",
    "flask m9m apikey create <options> --expires 90d, put it in place of this one, "
    "then: flask m9m apikey revoke <id>",
)
OWNER = Kind(
    "key-of-disabled-user",
    Severity.LOW,
    "an API key's owner is disabled",
    "it is refused, and works again the moment the user is enabled (ASVS 7.4.2)",
    "flask m9m apikey revoke <id>",
)
RETIRED = Kind(
    "credentials-under-retired-key",
    Severity.MEDIUM,
    "stored credentials, or the audit trail, are sealed under a previous key",
    "<count> of them: whoever has the old key opens them, and it cannot be removed (ASVS 11.2.2)",
    "flask m9m credential rotate, then remove the key from credentials.previous_keys",
)
UNREADABLE = Kind(
    "credentials-unreadable",
    Severity.HIGH,
    "stored credentials, or the audit trail, need a key that the settings do not list",
    "<count> of them need the key whose id is <key>; until it is there none is read or written",
    "find the former M9M_ENCRYPTION_KEY (its id was <key>), and put it into "
    "M9M_CREDENTIALS_PREVIOUS_KEYS in .env",
)

_IDLE = timedelta(days=90)


@finds(UNUSED, WITHOUT_EXPIRY, OWNER)
def api_keys(subject: Subject) -> Iterator[Finding]:
    """Look at the API keys that hold."""
    kept, now = _kept(subject), moment(subject.now)
    for key in kept.keys:
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            continue
        where = f"API key {key.id} ({key.name})"
        if key.owner in kept.disabled:
            yield OWNER.at(where, id=key.id)
        if now - _last_seen(key) > _IDLE:
            yield UNUSED.at(where, id=key.id)
        if key.expires_at is None:
            yield WITHOUT_EXPIRY.at(where, id=key.id, options=_like(key))


@finds(RETIRED, UNREADABLE)
def sealed_credentials(subject: Subject) -> Iterator[Finding]:
    """Look under which keys stored credentials are sealed."""
    settings = subject.settings.credentials
    counts: dict[str, int] = {}
    for seal, count in _kept(subject).seals if settings.storage == "database" else ():
        key_id = seal.rpartition(":")[2]
        counts[key_id] = counts.get(key_id, 0) + count
    trail = _kept(subject).trail_key
    if trail is not None:
        counts[trail] = counts.get(trail, 0) + 1
    if not counts:
        return
    ids = key_ids(subject)
    primary = ids[:1] if settings.encryption_key is not None else []
    for key_id, count in sorted(counts.items()):
        if key_id not in ids:
            yield UNREADABLE.at(f"what is stored, key {key_id}", key=key_id, count=count)
        elif key_id not in primary:
            yield RETIRED.at(f"what is stored, key {key_id}", count=count)


CHECKS = (api_keys, sealed_credentials)


def key_ids(subject: Subject) -> list[str]:
    """Return the ids of the encryption keys that the settings list."""
    settings = subject.settings.credentials
    given = [one for one in (settings.encryption_key, *settings.previous_keys) if one is not None]
    return [EncryptionKey(one.get_secret_value()).id for one in given]


def _like(key: ApiKey) -> str:
    """Return the options that make a key like another, for a shell: its texts may be hostile."""
    words = [key.name, "--owner", key.owner]
    for option, values in (("--scope", key.scopes), ("--role", key.roles)):
        for value in sorted(values):
            words += [option, value]
    if key.rate_limit is not None:
        words += ["--rate-limit", key.rate_limit]
    # Behind `--` nothing is an option, whatever a name begins with.
    if key.name.startswith("-"):
        words = [*words[1:], "--", key.name]
    return shlex.join(words)


def _kept(subject: Subject) -> Kept:
    answer = subject.database
    return Kept() if isinstance(answer, Unreachable) else answer.kept


def _last_seen(key: ApiKey) -> datetime:
    return key.last_used_at or key.created_at
