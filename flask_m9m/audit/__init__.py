"""The audit trail: security events in the log and in a tamper-evident database table."""

from __future__ import annotations

from .chain import Anchor
from .events import SUCCESS, Circumstances, Event, EventName, Recorded
from .trail import AuditTrail

__all__ = [
    "SUCCESS",
    "Anchor",
    "AuditTrail",
    "Circumstances",
    "Event",
    "EventName",
    "Recorded",
]
