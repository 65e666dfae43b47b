"""Checks of what is installed: versions with a known hole, in the packages that requests pass.

The table holds what was published when this package was made; `pip-audit` knows what came since.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from .findings import Finding, Kind, Severity
from .subject import Subject, finds

VULNERABLE = Kind(
    "dependency-vulnerable",
    Severity.HIGH,
    "a package that is installed has a known hole",
    "<what> (<advisory>; ASVS 15.2.1)",
    "pip install --upgrade '<name>>=<fixed>'",
)

KNOWN_ON = datetime(2026, 7, 7, tzinfo=UTC)
"""The day of the newest entry below: this package is younger."""


class Advisory(NamedTuple):
    """A hole, and the first version without it."""

    name: str
    fixed: str
    advisory: str
    what: str


ADVISORIES = (
    Advisory("cryptography", "46.0.5", "CVE-2026-26007", "keys on SECT curves were not checked"),
    Advisory("Flask", "3.1.1", "CVE-2025-47278", "sessions were signed with the oldest key"),
    Advisory("Flask", "3.1.3", "CVE-2026-27205", "caches gave one user's answer to another"),
    Advisory("gunicorn", "22.0.0", "CVE-2024-1135", "requests could be smuggled"),
    Advisory("gunicorn", "22.0.0", "CVE-2024-6827", "requests could be smuggled"),
    Advisory("Jinja2", "3.1.6", "CVE-2025-27516", "templates could leave the sandbox"),
    Advisory("PyJWT", "2.4.0", "CVE-2022-29217", "a public key was taken for an HMAC secret"),
    Advisory("PyJWT", "2.10.1", "CVE-2024-53861", "a part of an issuer passed for all of it"),
    Advisory("PyJWT", "2.12.0", "CVE-2026-32597", "unknown critical headers were accepted"),
    Advisory("PyJWT", "2.13.0", "CVE-2026-48523", "the allowed algorithms could be passed by"),
    Advisory("PyJWT", "2.13.0", "CVE-2026-48524", "each unknown key id fetched the key set"),
    Advisory("python-dotenv", "1.2.2", "CVE-2026-28684", "set_key wrote through links"),
    Advisory("Werkzeug", "3.0.3", "CVE-2024-34069", "the debugger ran what another site sent"),
    Advisory("Werkzeug", "3.0.6", "CVE-2024-49767", "a multipart form could take all memory"),
    Advisory("Werkzeug", "3.1.5", "CVE-2026-21860", "safe_join let device names of Windows in"),
    Advisory("Werkzeug", "3.1.6", "CVE-2026-27199", "safe_join let device names of Windows in"),
)

_RELEASE = re.compile(r"\d+(?:\.\d+)*")


@finds(VULNERABLE)
def installed_packages(subject: Subject) -> Iterator[Finding]:
    """Hold what is installed to the table."""
    for one in ADVISORIES:
        try:
            installed = version(one.name)
        except PackageNotFoundError:
            continue
        if _release(installed) < _release(one.fixed):
            yield VULNERABLE.at(f"{one.name} {installed}", **one._asdict())


CHECKS = (installed_packages,)


def _release(text: str) -> tuple[int, ...]:
    """Return a version's release (PEP 440), without zeros at its end."""
    match = _RELEASE.match(text)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
