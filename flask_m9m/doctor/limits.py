"""Checks of rate limits and the lockout."""

from __future__ import annotations

from collections.abc import Iterator

from .findings import Finding, Kind, Severity
from .subject import Subject, finds

OFF = Kind(
    "limiter-off",
    Severity.MEDIUM,
    "there is no general rate limit",
    "one client can take all the app has (ASVS 2.4.1; OWASP API4:2023)",
    "performance: {rate_limit: {enabled: true, requests_per_minute: 60, burst: 10}}",
)
SHADOW = Kind(
    "limiter-shadow",
    Severity.LOW,
    "the general rate limit counts and refuses nobody",
    "it was switched on to be tried out: until then nothing is limited (ASVS 2.4.1)",
    "performance: {rate_limit: {shadow: false}}",
)
MEMORY = Kind(
    "limiter-memory",
    Severity.MEDIUM,
    "each worker counts rate limits and failed attempts alone",
    "<workers> workers let <workers> times as many requests and guesses through (ASVS 6.3.1)",
    "performance: {rate_limit: {storage: shared}}",
)
OPEN = Kind(
    "limiter-open",
    Severity.LOW,
    "while the store of rate limits is gone nothing is limited",
    "whoever can stop the store can stop the limits (ASVS 16.5.2, 16.5.3: never fail open)",
    "performance: {rate_limit: {on_storage_failure: local}}",
)
LOCKOUT_OFF = Kind(
    "lockout-off",
    Severity.HIGH,
    "failed attempts at credentials are not throttled",
    "passwords can be tried as fast as the app answers (ASVS 6.3.1)",
    "security: {lockout: {enabled: true}}",
)


@finds(OFF, SHADOW, MEMORY, OPEN)
def limiter(subject: Subject) -> Iterator[Finding]:
    """Look at the general limit, and at where all are counted."""
    section = "performance.rate_limit"
    limiting, workers = subject.settings.performance.rate_limit, subject.settings.server.workers
    if not limiting.enabled:
        yield OFF.at(subject.at(f"{section}.enabled"))
    elif limiting.shadow:
        yield SHADOW.at(subject.at(f"{section}.shadow"))
    if limiting.storage == "memory" and workers > 1:
        yield MEMORY.at(subject.at(f"{section}.storage"), workers=workers)
    if limiting.storage != "memory" and limiting.on_storage_failure == "open":
        yield OPEN.at(subject.at(f"{section}.on_storage_failure"))


@finds(LOCKOUT_OFF)
def lockout(subject: Subject) -> Iterator[Finding]:
    """Look whether failed attempts count."""
    if not subject.settings.security.lockout.enabled:
        yield LOCKOUT_OFF.at(subject.at("security.lockout.enabled"))


CHECKS = (limiter, lockout)
