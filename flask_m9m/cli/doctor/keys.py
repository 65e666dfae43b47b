"""Checks of API keys, and of the encryption keys of stored credentials and the audit trail."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta

from ...credentials.encryption.encryption_keys import EncryptionKey
from ...errors import DatabaseUnavailable
from ...extension.model_columns import NAME_DATABASE, find_columns
from ...storage.records import ApiKey, moment
from .backends import DATABASE_SECONDS, StoredData, Unreachable, within
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
    "stored credentials, the audit trail or encrypted columns are encrypted with a previous key",
    "<count> stored values are encrypted with a previous key: an attacker who has that key can "
    "decrypt them, and it cannot be removed from the settings (ASVS 11.2.2)",
    "flask m9m credential rotate; then remove the key from credentials.previous_keys",
)
UNREADABLE = Kind(
    "credentials-unreadable",
    Severity.HIGH,
    "stored credentials, the audit trail or encrypted columns need a key that the settings do not "
    "list",
    "<count> stored values need the key with the id <key>, which the settings do not list: until "
    "they do, these values cannot be read",
    "find the former M9M_ENCRYPTION_KEY with the id <key>, and add it to "
    "M9M_CREDENTIALS_PREVIOUS_KEYS in .env",
)
PLAIN_TEXT = Kind(
    "column-plain-text",
    Severity.HIGH,
    "an encrypted column has values in plain text",
    "<count> values are plain text: whoever reads the database or a backup of it reads them, and "
    "the app cannot (ASVS 11.3.1)",
    "flask m9m columns encrypt <column>",
)
NOT_SEEN = Kind(
    "column-not-seen",
    Severity.LOW,
    "the values of an encrypted column cannot be looked at",
    "<reason>: neither the doctor nor flask m9m credential rotate knows which keys its values need",
    "<remedy>",
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


@finds(RETIRED, UNREADABLE, PLAIN_TEXT, NOT_SEEN)
def needed_keys(subject: Subject) -> Iterator[Finding]:
    """Compare the keys that stored data is encrypted with to those of the settings."""
    yield from _keys_of_records(subject)
    yield from _keys_of_columns(subject)


def _keys_of_records(subject: Subject) -> Iterator[Finding]:
    settings = subject.settings.credentials
    counts: dict[str, int] = {}
    for seal, count in _stored(subject).seals if settings.storage == "database" else ():
        key_id = seal.rpartition(":")[2]
        counts[key_id] = counts.get(key_id, 0) + count
    trail = _stored(subject).trail_key
    if trail is not None:
        counts[trail] = counts.get(trail, 0) + 1
    listed = () if settings.encryption_key is None else key_ids(subject)
    yield from _misplaced("stored data, key", counts, listed)


def _keys_of_columns(subject: Subject) -> Iterator[Finding]:
    try:
        columns = within(DATABASE_SECONDS, lambda: find_columns(subject.state))
        for name in columns.not_seen:
            reason = "the database of this encrypted column is not known"
            yield NOT_SEEN.at(f"column {name}", reason=reason, remedy=NAME_DATABASE)
        for column in columns.found:
            in_use = dict(within(DATABASE_SECONDS, column.keys_in_use))
            if plain := in_use.pop("", 0):
                yield PLAIN_TEXT.at(f"column {column.name}", count=plain, column=column.name)
            where = f"column {column.name}, key"
            yield from _misplaced(where, in_use, column.listed_keys if in_use else ())
    except (DatabaseUnavailable, TimeoutError) as error:
        reason = str(error) or f"the database did not answer within {DATABASE_SECONDS:g} s"
        remedy = "start the database, then run: flask m9m doctor"
        yield NOT_SEEN.at("encrypted columns", reason=reason, remedy=remedy)


def _misplaced(where: str, counts: Mapping[str, int], listed: Collection[str]) -> Iterator[Finding]:
    """Find keys that values need and that are not the current one, the first one listed."""
    for key_id, count in sorted(counts.items()):
        if key_id not in listed:
            yield UNREADABLE.at(f"{where} {key_id}", key=key_id, count=count)
        elif key_id not in list(listed)[:1]:
            yield RETIRED.at(f"{where} {key_id}", count=count)


CHECKS = (api_keys, needed_keys)


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
