"""Checks of the audit trail."""

from __future__ import annotations

from collections.abc import Iterator

from .findings import Finding, Kind, Severity
from .subject import Subject, finds

OFF = Kind(
    "audit-off",
    Severity.LOW,
    "no audit trail is kept",
    "nobody can tell who logged in, what was refused and which keys were made (ASVS 16.3.1)",
    "audit: {enabled: true, sinks: [log]}",
)


@finds(OFF)
def audit_trail(subject: Subject) -> Iterator[Finding]:
    """Look whether what happens is written down anywhere."""
    audit = subject.settings.audit
    if not audit.enabled or not audit.sinks:
        path = "audit.sinks" if audit.enabled else "audit.enabled"
        yield OFF.at(subject.at(path))


CHECKS = (audit_trail,)
