"""Allowed CORS origins (RFC 6454, Fetch standard): parsing and matching `allowed_origins`.

A rule is an origin exactly as browsers send it, a host wildcard (`https://*.example.com`), `*`,
or `null`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

ANY = "*"
NULL = "null"

_FORMS = (
    'write an origin as browsers send it, such as "https://app.example.com", a host wildcard such '
    'as "https://*.example.com", or "*" alone'
)
_MAX_LENGTH = 300
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_OPAQUE = frozenset({"about", "blob", "data", "file", "javascript"})
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<wildcard>\*\.)?"
    r"(?P<host>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_LABELS = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")


class OriginKind(Enum):
    """The kinds of rules: one origin, subdomains of a host, or any origin."""

    EXACT = "exact"
    WILDCARD = "wildcard"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class OriginRule:
    """An entry of `allowed_origins`.

    Attributes:
        text: the entry's text; the origin itself if the rule is exact.
        kind: the kind of rule.
    """

    text: str
    kind: OriginKind
    _prefix: str = field(default="", repr=False)
    _suffix: str = field(default="", repr=False)

    def matches(self, origin: str) -> bool:
        """Tell whether the rule allows an origin; the comparison is case-sensitive.

        A wildcard matches one or more labels before its host, but not the host itself, and only
        with the rule's scheme and port. Only the rule `null` matches the origin `null`.
        """
        if self.kind is OriginKind.EXACT:
            return origin == self.text
        if self.kind is OriginKind.ANY:
            return origin != NULL
        if not (origin.startswith(self._prefix) and origin.endswith(self._suffix)):
            return False
        labels = origin[len(self._prefix) : len(origin) - len(self._suffix)]
        return len(labels) <= _MAX_LENGTH and _LABELS.fullmatch(labels) is not None


def parse_origin_rule(text: str) -> OriginRule:
    """Parse an entry of `allowed_origins`.

    Args:
        text: an origin, a host wildcard, `*` or `null`.

    Raises:
        ValueError: browsers never send such an origin; the message shows the correct form.
    """
    if text == ANY:
        return OriginRule(text, OriginKind.ANY)
    if text == NULL:
        return OriginRule(text, OriginKind.EXACT)
    rule = _parse(text)
    if rule is None:
        right = _suggest_origin(text)
        raise ValueError(f'write "{right}"' if right else _FORMS)
    return rule


def _parse(text: str) -> OriginRule | None:
    match = _ORIGIN.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        return None
    scheme, wildcard, host, port = match.group("scheme", "wildcard", "host", "port")
    if scheme in _OPAQUE or not _is_canonical(host):
        return None
    if port is not None and (int(port) > 65_535 or port == _DEFAULT_PORTS.get(scheme)):
        return None
    if wildcard is None:
        return OriginRule(text, OriginKind.EXACT)
    if scheme not in _DEFAULT_PORTS or not _has_subdomains(host):
        return None
    prefix = f"{scheme}://"
    return OriginRule(text, OriginKind.WILDCARD, prefix, text.removeprefix(f"{prefix}*"))


def _is_canonical(host: str) -> bool:
    """Tell whether a host is written exactly as browsers serialise it."""
    if host.startswith("["):
        try:
            return host == f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ValueError:
            return False
    if not _LABELS.fullmatch(host):
        return False
    if not host.rpartition(".")[2].isdecimal():
        return True
    try:
        return host == str(ipaddress.IPv4Address(host))
    except ValueError:
        return False


def _has_subdomains(host: str) -> bool:
    """Tell whether a host may follow a wildcard; an address or a single label may not."""
    if host == "localhost":
        return True
    return "." in host and not host.startswith("[") and not host.rpartition(".")[2].isdecimal()


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _suggest_origin(text: str) -> str | None:
    """Return the origin that the text probably means, if any."""
    if len(text) > _MAX_LENGTH or not text.isprintable():
        return None
    try:
        parts = urlsplit(text.strip() if "://" in text else f"https://{text.strip()}")
        host, port = parts.hostname or "", parts.port
        if host.isascii():
            host = f"[{ipaddress.IPv6Address(host).compressed}]" if ":" in host else host
        else:
            host = host.encode("idna").decode("ascii")
    except ValueError:
        return None
    scheme = parts.scheme
    if "://" not in text and _is_local(host):
        scheme = "http"  # a development server, most likely
    default = port is None or str(port) == _DEFAULT_PORTS.get(scheme)
    right = f"{scheme}://{host.rstrip('.')}" + ("" if default else f":{port}")
    return right if right != text and _parse(right) else None
