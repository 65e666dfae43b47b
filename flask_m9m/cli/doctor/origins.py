"""Checks of CORS: the origins whose pages may read responses."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from ...guard.policy_compiler import cors_policy
from ...http.cors import ALLOW_CREDENTIALS, CORSPolicy
from ...wsgi.server.bind_address import is_loopback
from .findings import Finding, Kind, Severity
from .subject import Subject, finds

ANY = Kind(
    "origin-any",
    Severity.MEDIUM,
    "pages of any origin may read responses",
    "pages of any origin may read responses: every site that a user visits can call the API from "
    "the user's network (ASVS 3.4.2)",
    'list your own origins: security: {cors: {allowed_origins: ["https://app.example.com"]}}; for '
    'a single public route: @cors(allowed_origins=["*"])',
)
PLAIN = Kind(
    "origin-plain",
    Severity.MEDIUM,
    "an origin is allowed over plain HTTP",
    "<origin> is plain HTTP: an attacker on the network path can put a script into its pages, and "
    "read responses with it (ASVS 3.4.2)",
    "write <secure> instead of <origin>",
)
WILDCARD = Kind(
    "origin-wildcard-credentials",
    Severity.MEDIUM,
    "every subdomain of a domain may send credentials",
    "<origin> allows every subdomain, with credentials: an attacker who takes over any of them, or "
    "injects a script there, can act as its users (ASVS 3.4.2)",
    "list the hosts instead of <origin>, or: security: {cors: {allow_credentials: false}}",
)


@finds(ANY, PLAIN, WILDCARD)
def origins(subject: Subject) -> Iterator[Finding]:
    """Examine the origins of the settings, and of each route that has its own."""
    settings = subject.settings.security.cors
    # Development mode allows any origin, which is a finding of its own.
    general = cors_policy(settings, development=False)
    if general is not None:
        yield from _examine(general, subject.at("security.cors.allowed_origins"))
    if subject.settings.development.enabled:
        return
    known = general.origins if general is not None else ()
    for routes in subject.routes_by_endpoint.values():
        for route in routes:
            policy = route.policy.cors
            if policy is None or policy.origins == known:
                continue
            if policy.origins == ("*",) and not route.policy.authenticators:
                continue  # anyone who reaches the route may read it anyway
            yield from _examine(policy, f"@cors of {route}")


CHECKS = (origins,)


def _examine(policy: CORSPolicy, where: str) -> Iterator[Finding]:
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
