"""Checks of CORS: whose pages may read answers."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from ..http.cors import ALLOW_CREDENTIALS, CORSPolicy
from ..policy.compiler import cors_policy
from ..server.address import is_loopback
from .findings import Finding, Kind, Severity
from .subject import Subject, finds

ANY = Kind(
    "origin-any",
    Severity.MEDIUM,
    "pages of any origin may read answers",
    "every site that a user visits can call the API from the user's network (ASVS 3.4.2)",
    'security: {cors: {allowed_origins: ["https://app.example.com"]}}, with your own; for a '
    'public route alone: @cors(allowed_origins=["*"])',
)
PLAIN = Kind(
    "origin-plain",
    Severity.MEDIUM,
    "an origin is allowed over plain HTTP",
    "whoever sits on the way can put a script into that page, and read answers (ASVS 3.4.2)",
    "write <secure> in place of <origin>",
)
WILDCARD = Kind(
    "origin-wildcard-credentials",
    Severity.MEDIUM,
    "every host below a domain may send credentials",
    "one subdomain that is taken over or has a hole acts as its users (ASVS 3.4.2)",
    "list the hosts in place of <origin>, or security: {cors: {allow_credentials: false}}",
)


@finds(ANY, PLAIN, WILDCARD)
def origins(subject: Subject) -> Iterator[Finding]:
    """Look at the settings' origins, and at those of routes that have their own."""
    settings = subject.settings.security.cors
    # What development mode allows besides is development mode's finding.
    general = cors_policy(settings, development=False)
    if general is not None:
        yield from _of(general, subject.at("security.cors.allowed_origins"))
    if subject.settings.development.enabled:
        return
    known = general.origins if general is not None else ()
    for routes in subject.routes_by_endpoint.values():
        for route in routes:
            policy = route.policy.cors
            if policy is None or policy.origins == known:
                continue
            if policy.origins == ("*",) and not route.policy.authenticators:
                continue  # whoever can reach it may read it anyway
            yield from _of(policy, f"@cors of {route}")


CHECKS = (origins,)


def _of(policy: CORSPolicy, where: str) -> Iterator[Finding]:
    for origin in policy.origins:
        if origin == "*":
            yield ANY.at(where)
            continue
        host = urlsplit(origin.replace("*.", "any.", 1)).hostname or ""
        if origin.startswith("http://") and not is_loopback(host):
            secure = origin.replace("http://", "https://", 1)
            yield PLAIN.at(f"{where}: {origin}", origin=origin, secure=secure)
        if "*" in origin:
            fields = policy.response_headers(origin.replace("*", "any", 1))
            if any(name == ALLOW_CREDENTIALS for name, _ in fields):
                yield WILDCARD.at(f"{where}: {origin}", origin=origin)
