"""Findings: their severities, the kinds that a check can report, and the findings themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_PLACEHOLDER = re.compile(r"<([a-z_]+)>")


class Severity(StrEnum):
    """How much a finding matters, in descending order."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """The position in the order: 0 for critical."""
        return list(Severity).index(self)

    @property
    def points(self) -> int:
        """The points that a finding takes off the score of 100."""
        return {"critical": 40, "high": 15, "medium": 5, "low": 1}[self.value]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that a check found.

    Attributes:
        id: the id of its kind, the same in every version.
        severity: how much it matters.
        where: the setting and its source, the route or the file.
        why: what is wrong and what can come of it, with the requirement or the RFC.
        fix: the remedy: a line of settings, a command or a line of code.
    """

    id: str
    severity: Severity
    where: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding.

    Attributes:
        id: the id, as `--ignore` takes it.
        severity: how much such a finding matters.
        what: the problem, for the documentation.
        why: as in `Finding`; a placeholder `<name>` is filled in for each finding.
        fix: as in `Finding`, with placeholders too.
    """

    id: str
    severity: Severity
    what: str
    why: str
    fix: str

    def at(self, where: str, **values: object) -> Finding:
        """Make a finding of this kind.

        Args:
            where: as in `Finding`.
            values: the value of each placeholder.
        """
        why, fix = (_fill(text, values) for text in (self.why, self.fix))
        return Finding(self.id, self.severity, where, why, fix)


def _fill(text: str, values: dict[str, object]) -> str:
    return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), text)
