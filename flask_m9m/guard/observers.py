"""Observers of one app's guard: the audit observer and the metrics."""

from __future__ import annotations

from collections.abc import Callable

from ..audit.trail import AuditTrail
from .audit_observer import AuditObserver
from .exchange import Observer


def make_observers(
    trail: AuditTrail, clock: Callable[[], float], metrics: Observer | None
) -> list[Observer]:
    """Make the observers of one app's guard.

    Args:
        trail: records request events.
        clock: seconds since the epoch.
        metrics: counts exchanges, if metrics are switched on.
    """
    observers: list[Observer] = [AuditObserver(trail, clock)]
    if metrics is not None:
        observers.append(metrics)
    return observers
