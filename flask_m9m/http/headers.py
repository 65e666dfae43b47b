"""Security headers: CSP nonces, HSTS, and the merging of `Vary` and `Cache-Control` fields."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping

CONTENT_SECURITY_POLICY = "Content-Security-Policy"
STRICT_TRANSPORT_SECURITY = "Strict-Transport-Security"

_NONCE_DIRECTIVES = ("script-src", "style-src")
_PLACEHOLDER = "'nonce-\0'"
_DIRECTIVE = re.compile(r'(?:[^,"]|"[^"]*")+')
_SHARED_CACHING = frozenset(("public", "s-maxage"))

HeaderFields = list[tuple[str, str]]
"""The header fields of a response, in the form of WSGI."""

FixedFields = tuple[tuple[str, str], ...]
"""Header fields that are made once and used in many responses."""


class SecurityHeaders:
    """The security header fields of responses.

    Args:
        values: the fields' values by name.
        development: whether to omit `Strict-Transport-Security` even over HTTPS; a browser would
            remember it for `localhost`.

    Attributes:
        plain: the fields of a response over plain HTTP, without HSTS (RFC 6797 §7.2).
        secure: the fields of a response over HTTPS.
        names: the fields' names, in lower case.
    """

    def __init__(self, values: Mapping[str, str], *, development: bool = False) -> None:
        fields = tuple(values.items())
        self.plain = tuple(field for field in fields if field[0] != STRICT_TRANSPORT_SECURITY)
        self.secure = self.plain if development else fields
        self.names = frozenset(name.lower() for name, _ in self.secure)
        self._nonce_template = _nonce_template(values.get(CONTENT_SECURITY_POLICY, ""))

    def with_nonce(self, fields: Iterable[tuple[str, str]], nonce: str) -> HeaderFields:
        """Return the fields with a CSP that allows scripts and styles with this nonce."""
        policy = self._nonce_template.replace("\0", nonce)
        return [
            (name, policy if name == CONTENT_SECURITY_POLICY else value) for name, value in fields
        ]


def new_nonce() -> str:
    """Make a nonce of 128 random bits (CSP3 §7.1)."""
    return secrets.token_urlsafe(16)


def _nonce_template(policy: str) -> str:
    """Add a placeholder for a nonce to a policy's script and style sources.

    A missing directive falls back to `default-src` (CSP3 §6.8.3). If that is missing too,
    everything is allowed already.
    """
    directives: dict[str, str] = {}
    for text in policy.split(";"):
        name, _, sources = text.strip().partition(" ")
        if name:
            directives.setdefault(name.lower(), sources.strip())
    default = directives.get("default-src")
    for name in _NONCE_DIRECTIVES:
        if name not in directives and default is not None:
            directives[name] = default
        for own in (name, f"{name}-elem"):
            if own in directives:
                sources = "" if directives[own] == "'none'" else directives[own]
                directives[own] = f"{sources} {_PLACEHOLDER}".strip()
    return "; ".join(f"{name} {sources}".strip() for name, sources in directives.items())


def merge_vary(values: Iterable[str]) -> str:
    """Merge several `Vary` fields into one, with each name once (RFC 9110 §12.5.5)."""
    merged: dict[str, str] = {}
    for name in ",".join(values).split(","):
        if name := name.strip(" \t"):
            merged.setdefault(name.lower(), name)
    return "*" if "*" in merged else ", ".join(merged.values())


def private_cache_control(value: str | None) -> str:
    """Compute the `Cache-Control` of a response meant for a single caller.

    Shared caches may not store responses to requests with `Authorization`, unless they have
    `public` or `s-maxage` (RFC 9111 §3.5); other credentials have no such rule. So these two
    directives are removed, and `private` is added.

    Args:
        value: the response's own `Cache-Control`; `None` if it has none.

    Returns:
        The field's new value; `no-store` if the response has none, or has one that is ambiguous.
    """
    if value is None or "\\" in value or value.count('"') % 2:
        return "no-store"  # two caches could parse an ambiguous value differently
    directives = [directive.strip() for directive in _DIRECTIVE.findall(value)]
    names = [directive.lower() for directive in directives]
    if "no-store" in names:
        return value
    kept = [
        directive
        for directive in directives
        if directive and directive.partition("=")[0].lower() not in _SHARED_CACHING
    ]
    if "private" not in names:
        kept.append("private")
    return ", ".join(kept)
