"""Audit events about stored credentials: reads, changes and refused access."""

from __future__ import annotations

from typing import Any

from ..audit.events import Event, EventName
from ..audit.trail import AuditTrail
from ..auth.identity import Identity
from ..storage.records import SealedCredential
from .caller import Caller
from .stores import StoreTransaction


def record_reads(
    trail: AuditTrail, who: Caller, *records: SealedCredential, **details: Any
) -> None:
    """Write one event for each record that was decrypted for a caller.

    Raises:
        DatabaseUnavailable: the events cannot be written; the caller must not get the data.
    """
    read = EventName.CREDENTIAL_READ
    trail.record_change(
        None, *[event_of(trail, read, record, who, **details) for record in records]
    )


def record_change(
    trail: AuditTrail,
    transaction: StoreTransaction,
    who: Caller,
    change: str,
    *records: SealedCredential,
) -> None:
    """Write one event for each changed record, in the transaction of the change.

    Args:
        trail: the audit trail.
        transaction: the transaction of the change.
        who: the caller.
        change: `created`, `changed`, `deleted` or `imported`.
        records: the changed records.

    Raises:
        DatabaseUnavailable: the events cannot be written; the change must not be made.
    """
    changed = EventName.CREDENTIAL_CHANGED
    events = [event_of(trail, changed, record, who, change=change) for record in records]
    trail.record_change(transaction.database, *events, committed=transaction.committed)


def record_denial(trail: AuditTrail, who: Caller, record: SealedCredential, outcome: str) -> None:
    """Note that a caller was refused a record, with the error code as the outcome."""
    event = event_of(trail, EventName.ACCESS_DENIED, record, who)
    trail.record_event(event._replace(outcome=outcome))


def event_of(
    trail: AuditTrail, name: EventName, record: SealedCredential, who: Caller, **details: Any
) -> Event:
    """Make an audit event about a record.

    Args:
        trail: the audit trail, which adds the current request's data to the event.
        name: the event's name.
        record: the record that it is about.
        who: the caller; for the app itself, the event keeps the current request's caller.
        details: further details of the event.
    """
    event = trail.event(name, target=record.id, type=record.type, owner=record.owner, **details)
    if isinstance(who, Identity):
        return event._replace(subject=who.subject, scheme=who.scheme)
    return event
