"""The audit trail: security events in the log and in a tamper-evident database table."""

from __future__ import annotations

from .chain import Anchor
from .events import SUCCESS, Circumstances, Event, EventName, Recorded
from .trail import AuditTrail
from .verification import Progress, Verification

__all__ = [
    "SUCCESS",
    "Anchor",
    "AuditTrail",
    "Circumstances",
    "Event",
    "EventName",
    "Progress",
    "Recorded",
    "Verification",
]
