"""Doctor: the checks behind `flask m9m doctor`, each finding with a reason and a fix."""

from __future__ import annotations

from .examination import CHECKS, KINDS, NOT_LOADED, REFUSED, Report, examine, refusals, report
from .findings import Finding, Kind, Severity
from .subject import Check, Subject

__all__ = [
    "CHECKS",
    "KINDS",
    "NOT_LOADED",
    "REFUSED",
    "Check",
    "Finding",
    "Kind",
    "Report",
    "Severity",
    "Subject",
    "examine",
    "refusals",
    "report",
]
