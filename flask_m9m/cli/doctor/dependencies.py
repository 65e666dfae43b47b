"""Check of dependencies: installed versions with known vulnerabilities (CVEs).

The table covers the packages that handle requests, as published when this package was made;
`pip-audit` knows later advisories.
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
    "an installed package has a known vulnerability",
    "the installed version has a known vulnerability: <what> (<advisory>; ASVS 15.2.1)",
    "pip install --upgrade '<name>>=<fixed>'",
)

KNOWN_ON = datetime(2026, 7, 7, tzinfo=UTC)
"""The date of the newest entry below; this package was made later."""


class Advisory(NamedTuple):
    """A vulnerability of a package.

    Attributes:
        name: the package's name on PyPI.
        fixed: the first version without the vulnerability.
        advisory: its CVE id.
        what: what goes wrong.
    """

    name: str
    fixed: str
    advisory: str
    what: str


ADVISORIES = (
    Advisory("cryptography", "46.0.5", "CVE-2026-26007", "keys on SECT curves are not validated"),
    Advisory("Flask", "3.1.1", "CVE-2025-47278", "sessions are signed with the oldest key"),
    Advisory("Flask", "3.1.3", "CVE-2026-27205", "a cache may send a user's page to others"),
    Advisory("gunicorn", "22.0.0", "CVE-2024-1135", "requests can be smuggled past a proxy"),
    Advisory("gunicorn", "22.0.0", "CVE-2024-6827", "requests can be smuggled past a proxy"),
    Advisory("Jinja2", "3.1.6", "CVE-2025-27516", "templates can escape from the sandbox"),
    Advisory("PyJWT", "2.4.0", "CVE-2022-29217", "a public key is accepted as an HMAC secret"),
    Advisory("PyJWT", "2.10.1", "CVE-2024-53861", "a part of the issuer's name is accepted"),
    Advisory("PyJWT", "2.12.0", "CVE-2026-32597", "unknown critical headers are accepted"),
    Advisory("PyJWT", "2.13.0", "CVE-2026-48523", "the allowed algorithms can be bypassed"),
    Advisory("PyJWT", "2.13.0", "CVE-2026-48524", "each unknown key id fetches the key set"),
    Advisory("python-dotenv", "1.2.2", "CVE-2026-28684", "set_key writes through symbolic links"),
    Advisory("Werkzeug", "3.0.3", "CVE-2024-34069", "the debugger runs code from another site"),
    Advisory("Werkzeug", "3.0.6", "CVE-2024-49767", "a multipart form can use up all memory"),
    Advisory("Werkzeug", "3.1.5", "CVE-2026-21860", "safe_join accepts Windows device names"),
    Advisory("Werkzeug", "3.1.6", "CVE-2026-27199", "safe_join accepts Windows device names"),
)

_RELEASE = re.compile(r"\d+(?:\.\d+)*")


@finds(VULNERABLE)
def installed_packages(subject: Subject) -> Iterator[Finding]:
    """Compare the installed versions with the table of advisories."""
    for advisory in ADVISORIES:
        try:
            installed = version(advisory.name)
        except PackageNotFoundError:
            continue
        if _release(installed) < _release(advisory.fixed):
            yield VULNERABLE.at(f"{advisory.name} {installed}", **advisory._asdict())


CHECKS = (installed_packages,)


def _release(text: str) -> tuple[int, ...]:
    """Parse the release segment of a version (PEP 440), without trailing zeros."""
    match = _RELEASE.match(text)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
