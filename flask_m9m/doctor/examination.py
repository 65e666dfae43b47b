"""Examination: every check of an app, and the score that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ..errors import Problem, SettingsError
from ..server.tls import Certificate
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
    "the settings, or the marks of a route, stop the start",
    "what stands there stops the start: <found>",
    "<path>: <accepted>",
)
NOT_LOADED = Kind(
    "app-not-loaded",
    Severity.CRITICAL,
    "the app cannot be loaded",
    "loading it raises <error>: nothing of it could be examined",
    "flask routes shows the error with its traceback",
)
FAILED = Kind(
    "check-failed",
    Severity.MEDIUM,
    "a check could not be made",
    "it raised <error>: what it looks for was not looked for",
    "report it, with the output of flask m9m doctor -o json; to pass it over: "
    "--ignore check-failed",
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
"""All that can be found, subject by subject."""

_PERFECT = 100


@dataclass(frozen=True, slots=True)
class Report:
    """What an examination found.

    Attributes:
        findings: the severest first; in the same order every time.
        ignored: the ids of findings that do not count.
    """

    findings: tuple[Finding, ...]
    ignored: tuple[str, ...]

    @property
    def score(self) -> int:
        """100 less the points of every finding, and not below 0."""
        return max(0, _PERFECT - sum(one.severity.points for one in self.findings))

    def at_least(self, level: Severity) -> bool:
        """Tell whether a finding is as severe as this, or more so."""
        return any(one.severity.rank <= level.rank for one in self.findings)


def report(found: Iterable[Finding], ignored: Collection[str] = ()) -> Report:
    """Put findings in their order, and leave out those that are ignored."""
    findings = sorted(set(found), key=lambda one: (one.severity.rank, one.id, one.where, one.fix))
    return Report(
        tuple(one for one in findings if one.id not in ignored),
        tuple(sorted({one.id for one in findings if one.id in ignored})),
    )


def refusals(problems: Iterable[Problem]) -> list[Finding]:
    """Return what stops the start, as findings."""
    found = []
    for one in problems:
        where = f"{one.path} ({one.source})" if one.source else one.path
        found.append(REFUSED.at(where, path=one.path, found=one.found, accepted=one.accepted))
    return found


def examine(subject: Subject, checks: Iterable[Check] = CHECKS) -> Iterator[Finding]:
    """Do what a start does, then make every check; one that fails hides no other."""
    for start in (_compile_routes, _prepare_guard, _read_certificate):
        yield from _made(start.__name__[1:].replace("_", "-"), partial(start, subject))
    for check in checks:
        yield from _made(check.name, partial(check.examine, subject))


def _compile_routes(subject: Subject) -> Iterable[Finding]:
    subject.state.routes.check_own()
    len(subject.routes)
    return ()


def _prepare_guard(subject: Subject) -> Iterable[Finding]:
    subject.state.guard.prepare()
    return ()


def _read_certificate(subject: Subject) -> Iterable[Finding]:
    if subject.settings.server.tls.enabled:
        Certificate(subject.settings.server.tls)
    return ()


def _made(name: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except SettingsError as error:
        yield from refusals(error.problems)
    except Exception as error:
        # Not its message: that may hold what nobody is to see.
        yield FAILED.at(f"check {name}", error=type(error).__name__)
