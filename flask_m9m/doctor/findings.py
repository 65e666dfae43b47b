"""Findings: what a check can find, and what it found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_PLACE = re.compile(r"<([a-z_]+)>")


class Severity(StrEnum):
    """How much a finding matters, the most first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 for the severest."""
        return list(Severity).index(self)

    @property
    def points(self) -> int:
        """What a finding takes off the score of 100."""
        return {"critical": 40, "high": 15, "medium": 5, "low": 1}[self.value]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    Attributes:
        id: which kind of thing, the same in every version.
        severity: how much it matters.
        where: the setting and its source, the route, the file.
        why: why it matters, with the requirement or the RFC that says so.
        fix: what mends it: a line of settings, a command or a line of code.
    """

    id: str
    severity: Severity
    where: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class Kind:
    """What a check can find.

    Attributes:
        id: what `--ignore` calls it.
        severity: how much it matters.
        what: what is so.
        why: as in `Finding`; `<name>` stands for what differs from case to case, here and in `fix`.
        fix: as in `Finding`.
    """

    id: str
    severity: Severity
    what: str
    why: str
    fix: str

    def at(self, where: str, **values: object) -> Finding:
        """Return a finding of this kind.

        Args:
            where: where it is.
            values: what stands for each `<name>`.
        """
        why, fix = (_filled(text, values) for text in (self.why, self.fix))
        return Finding(self.id, self.severity, where, why, fix)


def _filled(text: str, values: dict[str, object]) -> str:
    return _PLACE.sub(lambda match: str(values[match[1]]), text)
