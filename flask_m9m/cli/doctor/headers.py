"""Checks of security headers (CSP, HSTS, framing), in the settings and of single routes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ...guard.policy_compiler import header_policy
from ...http.headers import CONTENT_SECURITY_POLICY, STRICT_TRANSPORT_SECURITY
from ...settings.presets import HEADER_FIELDS
from .findings import Finding, Kind, Severity
from .subject import Subject, finds

OFF = Kind(
    "headers-off",
    Severity.MEDIUM,
    "security headers are switched off",
    "responses have no security headers: browsers guess content types, let other sites frame pages "
    "and fall back to plain HTTP (ASVS 3.4.1 to 3.4.6)",
    "security: {headers: {enabled: true}}; on a route, remove enabled=False from @security_headers",
)
MISSING = Kind(
    "header-missing",
    Severity.LOW,
    "a security header is switched off",
    "<reason>",
    "remove <setting>: null from the settings, or <setting>=None from @security_headers of the "
    "route; the default value is right",
)
CSP_WEAK = Kind(
    "csp-weak",
    Severity.MEDIUM,
    "the Content-Security-Policy allows scripts from any host, or inline in a page",
    "with <source> the Content-Security-Policy does not stop scripts that an attacker injects "
    "(ASVS 3.4.3; CSP3 §6.7)",
    '<remedy>, for example: security: {headers: {content_security_policy: "<preset>"}}; for '
    'pages: security: {headers: {preset: web}}, and nonce="{{ csp_nonce() }}" on each script',
)
HSTS_SHORT = Kind(
    "hsts-short",
    Severity.MEDIUM,
    "Strict-Transport-Security lasts for less than a year",
    "Strict-Transport-Security lasts for less than a year: a browser that comes back later can be "
    "led to plain HTTP (ASVS 3.4.1; RFC 6797 §11.4)",
    'security: {headers: {strict_transport_security: "max-age=63072000; includeSubDomains"}}',
)
FRAMING = Kind(
    "framing-allowed",
    Severity.MEDIUM,
    "other sites may show the app's pages in a frame",
    "other sites may show the app's pages in a frame, and make users click on what they do not see "
    "(clickjacking; ASVS 3.4.6; RFC 7034)",
    "security: {headers: {x_frame_options: DENY}}, and add frame-ancestors 'none' to the "
    "Content-Security-Policy",
)
WEAK = Kind(
    "header-weak",
    Severity.LOW,
    "a security header has a value that protects little",
    "<reason>",
    'security: {headers: {<setting>: "<good>"}}',
)

_YEAR = 31_536_000
_MAX_AGE = re.compile(r'\s*max-age\s*=\s*"?(\d+)"?\s*', re.IGNORECASE)
_REASONS = {
    "X-Content-Type-Options": "browsers guess the type of a response and may run it (ASVS 3.4.4)",
    CONTENT_SECURITY_POLICY: "nothing stops an injected script (ASVS 3.4.3)",
    STRICT_TRANSPORT_SECURITY: "browsers can be led to plain HTTP (ASVS 3.4.1)",
    "Referrer-Policy": "full URLs are sent to the sites that pages link to (ASVS 3.4.5)",
    "Permissions-Policy": "an injected page may use camera and location (OWASP Secure Headers)",
    "Cross-Origin-Opener-Policy": "the page that opened a page can control it (ASVS 3.4.8)",
    "Cross-Origin-Resource-Policy": "other sites may embed responses (ASVS 3.5.8)",
}
_SETTINGS = {field: name for name, field in HEADER_FIELDS.items()}
_UNSAFE_SOURCES = ("'unsafe-inline'", "'unsafe-eval'", "*", "http:", "https:", "data:")
_NO_DEFAULT = "no default-src"
_LEAKING_REFERRERS = ("unsafe-url", "no-referrer-when-downgrade", "origin-when-cross-origin")


@finds(OFF, MISSING, CSP_WEAK, HSTS_SHORT, FRAMING, WEAK)
def security_headers(subject: Subject) -> Iterator[Finding]:
    """Examine the headers of the settings, and of each route that has its own."""
    own = subject.settings.security.headers
    development = subject.settings.development.enabled
    general = dict(own.effective()) if own.enabled else None
    if general is None:
        yield OFF.at(subject.at("security.headers.enabled"))
    else:
        for name, finding in _problems(general, "security.headers"):
            path = f"security.headers.{name}"
            yield (
                finding
                if subject.source(path) == "default"
                else _relocate(finding, subject.at(path))
            )
    compiled = header_policy(own, development=development)
    known = None if compiled is None else dict(compiled.secure)
    for routes in subject.routes_by_endpoint.values():
        seen: list[dict[str, str] | None] = [known]
        for route in routes:
            policy = route.policy.headers
            fields = None if policy is None else dict(policy.secure)
            if fields in seen:
                continue
            seen.append(fields)
            if fields is None:
                yield OFF.at(f"@security_headers of {route}")
                continue
            if development and known is not None and STRICT_TRANSPORT_SECURITY not in fields:
                fields = {**fields, STRICT_TRANSPORT_SECURITY: f"max-age={_YEAR}"}
            for _, finding in _problems(fields, f"@security_headers of {route}"):
                if general is None or not _is_reported(finding, general):
                    yield finding


CHECKS = (security_headers,)


def _relocate(finding: Finding, where: str) -> Finding:
    """Copy a finding, with another place."""
    return Finding(finding.id, finding.severity, where, finding.why, finding.fix)


def _is_reported(finding: Finding, general: Mapping[str, str]) -> bool:
    """Tell whether a route's finding was reported for the settings already."""
    known = [(other.id, other.why, other.fix) for _, other in _problems(general, "")]
    return (finding.id, finding.why, finding.fix) in known


def _problems(fields: Mapping[str, str], where: str) -> Iterator[tuple[str, Finding]]:
    """Yield the name of a setting, and a finding about its header."""
    for field, reason in _REASONS.items():
        if field not in fields:
            name = _SETTINGS[field]
            yield name, MISSING.at(f"{where}: no {field}", reason=reason, setting=name)
    policy = _directives(fields.get(CONTENT_SECURITY_POLICY, ""))
    if source := _unsafe(policy):
        remedy = "add default-src" if source == _NO_DEFAULT else f"remove {source}"
        preset = "default-src 'self'; …"
        found = f"{where}: {source}"
        finding = CSP_WEAK.at(found, source=source, remedy=remedy, preset=preset)
        yield "content_security_policy", finding
    transport = fields.get(STRICT_TRANSPORT_SECURITY)
    if transport is not None and _max_age(transport) < _YEAR:
        yield "strict_transport_security", HSTS_SHORT.at(f"{where}: {transport}")
    if not _forbids_framing(policy, fields.get("X-Frame-Options")):
        yield "x_frame_options", FRAMING.at(f"{where}: X-Frame-Options, frame-ancestors")
    yield from _weak(fields, where)


def _weak(fields: Mapping[str, str], where: str) -> Iterator[tuple[str, Finding]]:
    """Yield findings about values that protect little, as `_problems` does."""
    sniffing = fields.get("X-Content-Type-Options", "nosniff")
    if sniffing.strip().lower() != "nosniff":
        reason = _REASONS["X-Content-Type-Options"]
        name = "x_content_type_options"
        yield name, WEAK.at(f"{where}: {sniffing}", reason=reason, setting=name, good="nosniff")
    referrer = fields.get("Referrer-Policy", "")
    if referrer.rpartition(",")[2].strip().lower() in _LEAKING_REFERRERS:
        reason, name = _REASONS["Referrer-Policy"], "referrer_policy"
        good = "no-referrer"
        yield name, WEAK.at(f"{where}: {referrer}", reason=reason, setting=name, good=good)


def _directives(policy: str) -> dict[str, list[str]]:
    """Parse a policy; of a directive that occurs twice, the first applies (CSP3 §2.2.1)."""
    directives: dict[str, list[str]] = {}
    for text in policy.split(";"):
        name, *sources = text.split()[:1] + text.split()[1:] or [""]
        if name:
            directives.setdefault(name.lower(), [source.lower() for source in sources])
    return directives


def _unsafe(policy: Mapping[str, list[str]]) -> str | None:
    """Find the first directive and source that allow scripts of an attacker."""
    if not policy:
        return None
    for name in ("script-src", "script-src-elem", "script-src-attr", "object-src"):
        sources = policy.get(name)
        if sources is None and name in ("script-src", "object-src"):
            if "default-src" not in policy:
                return _NO_DEFAULT
            name, sources = "default-src", policy["default-src"]
        strict = any(source.startswith(("'nonce-", "'sha")) for source in sources or ())
        for source in sources or ():
            # A browser that supports nonces then ignores 'unsafe-inline' (CSP3 §6.7.3.3).
            if source in _UNSAFE_SOURCES and not (strict and source == "'unsafe-inline'"):
                return f"{name} {source}"
    return None


def _max_age(value: str) -> int:
    for directive in value.split(";"):
        if match := _MAX_AGE.fullmatch(directive):
            return int(match[1])
    return 0


def _forbids_framing(policy: Mapping[str, list[str]], frame_options: str | None) -> bool:
    ancestors = policy.get("frame-ancestors")
    if ancestors is not None:
        return not any(source in ("*", "http:", "https:") for source in ancestors)
    return (frame_options or "").strip().upper() in ("DENY", "SAMEORIGIN")
