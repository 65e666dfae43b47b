"""Checks of rate limits, of the store that counts them, and of the lockout."""

from __future__ import annotations

from collections.abc import Iterator

from .findings import Finding, Kind, Severity
from .subject import Subject, finds

OFF = Kind(
    "limiter-off",
    Severity.MEDIUM,
    "there is no general rate limit",
    "there is no general rate limit: one client can use up all the capacity of the app (ASVS "
    "2.4.1; OWASP API4:2023)",
    "performance: {rate_limit: {enabled: true, requests_per_minute: 60, burst: 10}}",
)
SHADOW = Kind(
    "limiter-shadow",
    Severity.LOW,
    "the general rate limit counts requests, but refuses none",
    "the general rate limit is in shadow mode, for trying it out: it counts requests, but refuses "
    "none (ASVS 2.4.1)",
    "performance: {rate_limit: {shadow: false}}",
)
MEMORY = Kind(
    "limiter-memory",
    Severity.MEDIUM,
    "each worker counts rate limits and failed attempts on its own",
    "each of the <workers> workers counts on its own, so that <workers> times as many requests and "
    "password guesses get through (ASVS 6.3.1)",
    "performance: {rate_limit: {storage: shared}}",
)
OPEN = Kind(
    "limiter-open",
    Severity.LOW,
    "while the store of rate limits is unavailable, nothing is limited",
    "while the store of rate limits is unavailable, nothing is limited: an attacker who can stop "
    "the store can switch the limits off (ASVS 16.5.2, 16.5.3: never fail open)",
    "performance: {rate_limit: {on_storage_failure: local}}",
)
LOCKOUT_OFF = Kind(
    "lockout-off",
    Severity.HIGH,
    "failed attempts to authenticate are not throttled",
    "the lockout is off: an attacker can try passwords as fast as the app answers (ASVS 6.3.1)",
    "security: {lockout: {enabled: true}}",
)


@finds(OFF, SHADOW, MEMORY, OPEN)
def limiter(subject: Subject) -> Iterator[Finding]:
    """Examine the general limit, and the store that counts all limits."""
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
    """Examine whether failed attempts to authenticate are counted."""
    if not subject.settings.security.lockout.enabled:
        yield LOCKOUT_OFF.at(subject.at("security.lockout.enabled"))


CHECKS = (limiter, lockout)
