"""Checks of API keys, and of the encryption keys of stored credentials and the audit trail."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta

from ...credentials.encryption.encryption_keys import EncryptionKey
from ...storage.records import ApiKey, moment
from .backends import StoredData, Unreachable
from .findings import Finding, Kind, Severity
from .subject import Subject, finds

UNUSED = Kind(
    "key-unused",
    Severity.LOW,
    "an API key has not been used for 90 days",
    "the key has not been used for 90 days: nobody would miss it, or notice that somebody else "
    "uses it (ASVS 13.3.4)",
    "flask m9m apikey revoke <id>",
)
WITHOUT_EXPIRY = Kind(
    "key-without-expiry",
    Severity.LOW,
    "an API key never expires",
    "the key never expires: once stolen, it works until somebody notices (ASVS 13.3.4)",
    "flask m9m apikey create <options> --expires 90d, put the new key in place of this one, then: "
    "flask m9m apikey revoke <id>",
)
OWNER = Kind(
    "key-of-disabled-user",
    Severity.LOW,
    "the owner of an API key is disabled",
    "the owner of the key is disabled: the key is refused now, but works again as soon as the user "
    "is enabled (ASVS 7.4.2)",
    "flask m9m apikey revoke <id>",
)
RETIRED = Kind(
    "credentials-under-retired-key",
    Severity.MEDIUM,
    "stored credentials, or the audit trail, are encrypted with a previous key",
    "<count> stored records are encrypted with a previous key: an attacker who has that key can "
    "decrypt them, and it cannot be removed from the settings (ASVS 11.2.2)",
    "flask m9m credential rotate; then remove the key from credentials.previous_keys",
)
UNREADABLE = Kind(
    "credentials-unreadable",
    Severity.HIGH,
    "stored credentials, or the audit trail, need a key that the settings do not list",
    "<count> stored records need the key with the id <key>, which the settings do not list: until "
    "they do, these records can be neither read nor written",
    "find the former M9M_ENCRYPTION_KEY with the id <key>, and add it to "
    "M9M_CREDENTIALS_PREVIOUS_KEYS in .env",
)

_UNUSED_FOR = timedelta(days=90)


@finds(UNUSED, WITHOUT_EXPIRY, OWNER)
def api_keys(subject: Subject) -> Iterator[Finding]:
    """Find valid API keys that are unused, never expire or belong to a disabled user."""
    stored, now = _stored(subject), moment(subject.now)
    for key in stored.keys:
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            continue
        where = f"API key {key.id} ({key.name})"
        if key.owner in stored.disabled:
            yield OWNER.at(where, id=key.id)
        if now - _last_use(key) > _UNUSED_FOR:
            yield UNUSED.at(where, id=key.id)
        if key.expires_at is None:
            yield WITHOUT_EXPIRY.at(where, id=key.id, options=_options_of(key))


@finds(RETIRED, UNREADABLE)
def sealed_credentials(subject: Subject) -> Iterator[Finding]:
    """Compare the keys that stored data is encrypted with to those of the settings."""
    settings = subject.settings.credentials
    counts: dict[str, int] = {}
    for seal, count in _stored(subject).seals if settings.storage == "database" else ():
        key_id = seal.rpartition(":")[2]
        counts[key_id] = counts.get(key_id, 0) + count
    trail = _stored(subject).trail_key
    if trail is not None:
        counts[trail] = counts.get(trail, 0) + 1
    if not counts:
        return
    ids = key_ids(subject)
    primary = ids[:1] if settings.encryption_key is not None else []
    for key_id, count in sorted(counts.items()):
        if key_id not in ids:
            yield UNREADABLE.at(f"stored data, key {key_id}", key=key_id, count=count)
        elif key_id not in primary:
            yield RETIRED.at(f"stored data, key {key_id}", count=count)


CHECKS = (api_keys, sealed_credentials)


def key_ids(subject: Subject) -> list[str]:
    """List the ids of the encryption keys in the settings, the current key first."""
    settings = subject.settings.credentials
    given = [key for key in (settings.encryption_key, *settings.previous_keys) if key is not None]
    return [EncryptionKey(key.get_secret_value()).id for key in given]


def _options_of(key: ApiKey) -> str:
    """Make the shell arguments that create an equal key.

    They are quoted, for the key's name and owner may contain shell syntax.
    """
    words = [key.name, "--owner", key.owner]
    for option, values in (("--scope", key.scopes), ("--role", key.roles)):
        for value in sorted(values):
            words += [option, value]
    if key.rate_limit is not None:
        words += ["--rate-limit", key.rate_limit]
    # After `--` a name that starts with a dash is not read as an option.
    if key.name.startswith("-"):
        words = [*words[1:], "--", key.name]
    return shlex.join(words)


def _stored(subject: Subject) -> StoredData:
    answer = subject.database
    return StoredData() if isinstance(answer, Unreachable) else answer.stored


def _last_use(key: ApiKey) -> datetime:
    return key.last_used_at or key.created_at
