"""Security headers: what every answer carries, and how caching and `Vary` fields are merged."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping

CONTENT_SECURITY_POLICY = "Content-Security-Policy"
STRICT_TRANSPORT_SECURITY = "Strict-Transport-Security"

_NONCED = ("script-src", "style-src")
_PLACE = "'nonce-\0'"
_DIRECTIVE = re.compile(r'(?:[^,"]|"[^"]*")+')
_SHARED = frozenset(("public", "s-maxage"))

HeaderFields = list[tuple[str, str]]
"""The header fields of one response, as WSGI takes them."""

FixedFields = tuple[tuple[str, str], ...]
"""Header fields that are made once and shared by many responses."""


class SecurityHeaders:
    """The security header fields of an answer.

    Args:
        values: each field's value, by its name.
        development: whether to leave `Strict-Transport-Security` out altogether, which a
            browser would remember of `localhost`.

    Attributes:
        plain: the fields of an answer over plain HTTP, where browsers ignore HSTS
            (RFC 6797 §7.2).
        secure: those of an answer over HTTPS.
        names: the fields' names, in lower case.
    """

    def __init__(self, values: Mapping[str, str], *, development: bool = False) -> None:
        fields = tuple(values.items())
        self.plain = tuple(field for field in fields if field[0] != STRICT_TRANSPORT_SECURITY)
        self.secure = self.plain if development else fields
        self.names = frozenset(name.lower() for name, _ in self.secure)
        self._nonce_template = _nonce_template(values.get(CONTENT_SECURITY_POLICY, ""))

    def with_nonce(self, fields: Iterable[tuple[str, str]], nonce: str) -> HeaderFields:
        """Return fields whose Content-Security-Policy allows scripts and styles of this nonce."""
        policy = self._nonce_template.replace("\0", nonce)
        return [
            (name, policy if name == CONTENT_SECURITY_POLICY else value) for name, value in fields
        ]


def new_nonce() -> str:
    """Return a fresh nonce of 128 random bits (CSP3 §7.1)."""
    return secrets.token_urlsafe(16)


def _nonce_template(policy: str) -> str:
    """Give a policy's script and style sources a place for a nonce.

    A directive that is missing is what `default-src` says (CSP3 §6.8.3); where there is neither,
    everything is allowed already.
    """
    directives: dict[str, str] = {}
    for text in policy.split(";"):
        name, _, sources = text.strip().partition(" ")
        if name:
            directives.setdefault(name.lower(), sources.strip())
    default = directives.get("default-src")
    for name in _NONCED:
        if name not in directives and default is not None:
            directives[name] = default
        for own in (name, f"{name}-elem"):
            if own in directives:
                sources = "" if directives[own] == "'none'" else directives[own]
                directives[own] = f"{sources} {_PLACE}".strip()
    return "; ".join(f"{name} {sources}".strip() for name, sources in directives.items())


def merge_vary(values: Iterable[str]) -> str:
    """Return one `Vary` field of several, each name once (RFC 9110 §12.5.5)."""
    merged: dict[str, str] = {}
    for name in ",".join(values).split(","):
        if name := name.strip(" \t"):
            merged.setdefault(name.lower(), name)
    return "*" if "*" in merged else ", ".join(merged.values())


def private_cache_control(value: str | None) -> str:
    """Return the `Cache-Control` of an answer that is one caller's alone.

    RFC 9111 §3.5 keeps shared caches off answers to `Authorization` only, and `public` and
    `s-maxage` lift even that; so these go, and `private` comes.

    Args:
        value: what the answer says itself; `None` is nothing.
    """
    if value is None or "\\" in value or value.count('"') % 2:
        return "no-store"  # nothing said, or nothing that two readers would read alike
    directives = [one.strip() for one in _DIRECTIVE.findall(value)]
    names = [one.lower() for one in directives]
    if "no-store" in names:
        return value
    kept = [one for one in directives if one and one.partition("=")[0].lower() not in _SHARED]
    if "private" not in names:
        kept.append("private")
    return ", ".join(kept)
