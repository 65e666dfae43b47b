"""Examination: run every check of an app, sort the findings and compute the score."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ...errors import Problem, SettingsError
from ...wsgi.server.tls import Certificate
from . import (
    configuration,
    dependencies,
    files,
    headers,
    keys,
    lifetimes,
    limits,
    origins,
    proxies,
    routes,
    secrets,
    serving,
    storage,
    trail,
)
from .findings import Finding, Kind, Severity
from .subject import Check, Subject

REFUSED = Kind(
    "start-refused",
    Severity.CRITICAL,
    "the settings or the decorators of a route stop the app from starting",
    "this stops the app from starting: <found>",
    "<path>: <accepted>",
)
NOT_LOADED = Kind(
    "app-not-loaded",
    Severity.CRITICAL,
    "the app cannot be loaded",
    "loading the app raises <error>: nothing else in it can be examined",
    "this command shows the error with its traceback: flask routes",
)
FAILED = Kind(
    "check-failed",
    Severity.MEDIUM,
    "a check failed with an error",
    "the check raised <error>: problems that it looks for may exist unnoticed",
    "report the error, with the output of: flask m9m doctor -o json; to skip it: --ignore "
    "check-failed",
)

CHECKS: Sequence[Check] = (
    *configuration.CHECKS,
    *secrets.CHECKS,
    *files.CHECKS,
    *routes.CHECKS,
    *origins.CHECKS,
    *limits.CHECKS,
    *proxies.CHECKS,
    *serving.CHECKS,
    *headers.CHECKS,
    *lifetimes.CHECKS,
    *keys.CHECKS,
    *storage.CHECKS,
    *trail.CHECKS,
    *dependencies.CHECKS,
)

KINDS: Sequence[Kind] = (
    REFUSED,
    NOT_LOADED,
    *(kind for check in CHECKS for kind in check.kinds),
    FAILED,
)
"""Every kind of finding, grouped by subject."""

_PERFECT = 100


@dataclass(frozen=True, slots=True)
class Report:
    """The result of an examination.

    Attributes:
        findings: in a fixed order, the most severe first.
        ignored: the ids of findings that were ignored and cost no points.
    """

    findings: tuple[Finding, ...]
    ignored: tuple[str, ...]

    @property
    def score(self) -> int:
        """100 minus the points of every finding, and at least 0."""
        return max(0, _PERFECT - sum(finding.severity.points for finding in self.findings))

    def at_least(self, level: Severity) -> bool:
        """Tell whether any finding is of this severity or above."""
        return any(finding.severity.rank <= level.rank for finding in self.findings)


def report(found: Iterable[Finding], ignored: Collection[str] = ()) -> Report:
    """Sort findings, and separate those whose ids are ignored."""
    findings = sorted(
        set(found),
        key=lambda finding: (finding.severity.rank, finding.id, finding.where, finding.fix),
    )
    return Report(
        tuple(finding for finding in findings if finding.id not in ignored),
        tuple(sorted({finding.id for finding in findings if finding.id in ignored})),
    )


def refusals(problems: Iterable[Problem]) -> list[Finding]:
    """Turn the problems that stop the app from starting into findings."""
    found = []
    for problem in problems:
        where = f"{problem.path} ({problem.source})" if problem.source else problem.path
        found.append(
            REFUSED.at(where, path=problem.path, found=problem.found, accepted=problem.accepted)
        )
    return found


def examine(subject: Subject, checks: Iterable[Check] = CHECKS) -> Iterator[Finding]:
    """Prepare the app as a start does, then run every check.

    A check that fails is a finding, and the other checks still run.
    """
    for start in (_compile_routes, _prepare_guard, _read_certificate):
        yield from _run(start.__name__[1:].replace("_", "-"), partial(start, subject))
    for check in checks:
        yield from _run(check.name, partial(check.examine, subject))


def _compile_routes(subject: Subject) -> Iterable[Finding]:
    subject.state.routes.check()
    len(subject.routes)
    return ()


def _prepare_guard(subject: Subject) -> Iterable[Finding]:
    subject.state.guard.prepare()
    return ()


def _read_certificate(subject: Subject) -> Iterable[Finding]:
    if subject.settings.server.tls.enabled:
        Certificate(subject.settings.server.tls)
    return ()


def _run(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except SettingsError as error:
        yield from refusals(error.problems)
    except Exception as error:
        # Without its message, which may contain a secret.
        yield FAILED.at(f"check {name}", error=type(error).__name__)
