"""Checks of the audit trail: switched off, or broken."""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import TrailBroken
from ...settings.wording import printable
from .backends import DATABASE_SECONDS, Unreachable, within
from .findings import Finding, Kind, Severity
from .keys import key_ids
from .subject import Subject, finds

OFF = Kind(
    "audit-off",
    Severity.LOW,
    "no audit trail is kept",
    "no audit trail is kept: after an attack, nobody can find out who logged in, what was refused "
    "and which keys were made (ASVS 16.3.1)",
    "audit: {enabled: true, sinks: [log]}",
)
BROKEN = Kind(
    "audit-broken",
    Severity.HIGH,
    "the audit trail is damaged, and nothing can be added to it",
    "<reason>; somebody may have tampered with it, and until it is repaired, actions that must be "
    "recorded are refused with 503, revocations too (ASVS 16.4.2)",
    "list the changed records: flask m9m audit verify; then follow docs/audit.md, When the trail "
    "is broken",
)


@finds(OFF)
def audit_trail(subject: Subject) -> Iterator[Finding]:
    """Examine whether security events are recorded anywhere."""
    audit = subject.settings.audit
    if not audit.enabled or not audit.sinks:
        path = "audit.sinks" if audit.enabled else "audit.enabled"
        yield OFF.at(subject.at(path))


@finds(BROKEN)
def audit_trails_end(subject: Subject) -> Iterator[Finding]:
    """Examine whether the trail in the database can be continued."""
    answer = subject.database
    if isinstance(answer, Unreachable):
        return
    needed = answer.stored.trail_key
    if needed is not None and needed not in key_ids(subject):
        return  # `credentials-unreadable` reports this, with the remedy
    try:
        within(DATABASE_SECONDS, subject.state.trail.check)
    except TrailBroken as error:
        yield BROKEN.at("m9m_audit", reason=printable(error.reason))


CHECKS = (audit_trail, audit_trails_end)
