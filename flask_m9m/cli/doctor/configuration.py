"""Check of configuration files: files with section names of ours that are not read."""

from __future__ import annotations

from collections.abc import Iterator

from .findings import Finding, Kind, Severity
from .subject import Subject, finds

IGNORED = Kind(
    "config-passed-over",
    Severity.MEDIUM,
    "a configuration file has section names of flask-m9m, but is not read",
    "the file is not read, so its <names> settings have no effect: a file that is found by search "
    "is read only if it has a security, credentials or performance section (ASVS 13.1.1)",
    "if <file> is meant for flask-m9m, add the line security: {} to it, or name it: M9M(app, "
    'settings="<file>"); if it belongs to another tool: --ignore config-passed-over',
)


@finds(IGNORED)
def configuration_files(subject: Subject) -> Iterator[Finding]:
    """Find configuration files that the search did not take for ours."""
    for file, names in subject.state.loaded.ignored_sections.items():
        yield IGNORED.at(file, file=file, names=", ".join(names))


CHECKS = (configuration_files,)
