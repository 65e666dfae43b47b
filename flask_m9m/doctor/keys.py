"""Checks of what is kept: API keys, and the keys of stored credentials."""

from __future__ import annotations

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
    "flask m9m apikey create <name> --owner <owner> --expires 90d, put it in place of this one, "
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
    "stored credentials are sealed under a previous key",
    "<count> of them: whoever has the old key opens them, and it cannot be removed (ASVS 11.2.2)",
    "flask m9m credential rotate, then remove the key from credentials.previous_keys",
)
UNREADABLE = Kind(
    "credentials-unreadable",
    Severity.HIGH,
    "stored credentials need a key that the settings do not list",
    "<count> of them need the key <key>; until it is there none is read or written",
    "list the key <key> under credentials.previous_keys",
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
            yield WITHOUT_EXPIRY.at(where, id=key.id, name=repr(key.name), owner=repr(key.owner))


@finds(RETIRED, UNREADABLE)
def sealed_credentials(subject: Subject) -> Iterator[Finding]:
    """Look under which keys stored credentials are sealed."""
    settings = subject.settings.credentials
    counts: dict[str, int] = {}
    for seal, count in _kept(subject).seals:
        key_id = seal.rpartition(":")[2]
        counts[key_id] = counts.get(key_id, 0) + count
    if not counts or settings.storage != "database":
        return
    given = [one for one in (settings.encryption_key, *settings.previous_keys) if one is not None]
    ids = [EncryptionKey(one.get_secret_value()).id for one in given]
    primary = ids[:1] if settings.encryption_key is not None else []
    for key_id, count in sorted(counts.items()):
        if key_id not in ids:
            yield UNREADABLE.at(f"stored credentials, key {key_id}", key=key_id, count=count)
        elif key_id not in primary:
            yield RETIRED.at(f"stored credentials, key {key_id}", count=count)


CHECKS = (api_keys, sealed_credentials)


def _kept(subject: Subject) -> Kept:
    answer = subject.database
    return Kept() if isinstance(answer, Unreachable) else answer.kept


def _last_seen(key: ApiKey) -> datetime:
    return key.last_used_at or key.created_at
