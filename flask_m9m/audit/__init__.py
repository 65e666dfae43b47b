"""The audit trail: what happened, who did it, from where, and how it ended."""

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
