"""What the audit trail is told of stored credentials."""

from __future__ import annotations

from typing import Any

from ..audit import AuditTrail, Event, EventName
from ..auth.identity import Identity
from ..storage import SealedCredential
from .caller import Caller


def event_of(
    trail: AuditTrail, name: EventName, record: SealedCredential, who: Caller, **details: Any
) -> Event:
    """Return an event about a record.

    Args:
        trail: knows the request in which it happens.
        name: what happens.
        record: to which.
        who: who asks; where the app itself does, the request's caller stands in the event.
        details: what else there is to say.
    """
    event = trail.event(name, target=record.id, type=record.type, owner=record.owner, **details)
    if isinstance(who, Identity):
        return event._replace(subject=who.subject, scheme=who.scheme)
    return event
