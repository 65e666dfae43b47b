"""Checks of the audit trail."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import TrailBroken
from ..text import printable
from .backends import DATABASE_SECONDS, Unreachable, within
from .findings import Finding, Kind, Severity
from .keys import key_ids
from .subject import Subject, finds

OFF = Kind(
    "audit-off",
    Severity.LOW,
    "no audit trail is kept",
    "nobody can tell who logged in, what was refused and which keys were made (ASVS 16.3.1)",
    "audit: {enabled: true, sinks: [log]}",
)
BROKEN = Kind(
    "audit-broken",
    Severity.HIGH,
    "nothing can be appended to the audit trail",
    "<reason>: what would have to be written down is refused with 503, revocations too (ASVS "
    "16.4.2)",
    "flask m9m audit verify names what was changed; docs/audit.md says how to go on",
)


@finds(OFF)
def audit_trail(subject: Subject) -> Iterator[Finding]:
    """Look whether what happens is written down anywhere."""
    audit = subject.settings.audit
    if not audit.enabled or not audit.sinks:
        path = "audit.sinks" if audit.enabled else "audit.enabled"
        yield OFF.at(subject.at(path))


@finds(BROKEN)
def audit_trails_end(subject: Subject) -> Iterator[Finding]:
    """Look whether the database's trail ends where it was left."""
    answer = subject.database
    if isinstance(answer, Unreachable):
        return
    needed = answer.kept.trail_key
    if needed is not None and needed not in key_ids(subject):
        return  # `credentials-unreadable` says what is to be done
    try:
        within(DATABASE_SECONDS, subject.state.trail.check)
    except TrailBroken as error:
        yield BROKEN.at("m9m_audit", reason=printable(error.reason))


CHECKS = (audit_trail, audit_trails_end)
