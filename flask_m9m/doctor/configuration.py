"""Checks of how the settings came about."""

from __future__ import annotations

from collections.abc import Iterator

from .findings import Finding, Kind, Severity
from .subject import Subject, finds

PASSED_OVER = Kind(
    "config-passed-over",
    Severity.MEDIUM,
    "a configuration file with names of our sections is not read",
    "nothing that it says holds: it has <names>, but none of security, credentials and "
    "performance, by which a file that nobody named is known to be meant (ASVS 13.1.1)",
    "add security: {} to <file>; or name it: M9M(app, settings=...); another tool's: --ignore "
    "config-passed-over",
)


@finds(PASSED_OVER)
def configuration_files(subject: Subject) -> Iterator[Finding]:
    """Look for files that the search has passed over."""
    for file, names in subject.state.loaded.passed_over.items():
        yield PASSED_OVER.at(file, file=file, names=", ".join(names))


CHECKS = (configuration_files,)
