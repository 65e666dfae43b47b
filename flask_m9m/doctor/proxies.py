"""Checks of proxies: whose word about the client counts."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from werkzeug.middleware.proxy_fix import ProxyFix

from ..http.address import UNIX, Networks
from ..sightings import NEAR
from .findings import Finding, Kind, Severity
from .subject import Subject, finds

WIDE = Kind(
    "proxies-wide",
    Severity.HIGH,
    "forwarding headers count from more of the Internet than one's own proxies",
    "any host there can say it is any client: limits, lockout and logs take it for that "
    "(RFC 7239 §8.1; ASVS 4.1.3, 15.3.4)",
    'list the proxies alone: server: {trusted_proxies: ["10.0.0.0/8"]}, in place of <network>',
)
NOT_TRUSTED = Kind(
    "proxy-not-trusted",
    Severity.MEDIUM,
    "a peer of this machine or of a private network sent forwarding headers, and is not trusted",
    "all clients behind it share its address, so one rate limit and one lockout (ASVS 15.3.4)",
    'server: {trusted_proxies: ["<peer>"]}',
)
STRANGER = Kind(
    "forwarding-from-stranger",
    Severity.LOW,
    "a public address sent forwarding headers, and is not trusted",
    "it is a proxy that is missing in the settings, or a client that tries to pass for another; "
    "the header was ignored (RFC 7239 §8.1; ASVS 4.1.3)",
    'if it is yours: server: {trusted_proxies: ["<peer>"]}; else keep it out before it gets here',
)
HOST = Kind(
    "forwarded-host-trusted",
    Severity.LOW,
    "the trusted proxies are believed about the host",
    "a proxy that passes on what clients say lets them choose the host of redirects "
    "and of the check for cross-site requests (ASVS 4.1.3; RFC 7239 §8.1)",
    "server: {trust_forwarded_host: false}; or have the proxy set it itself: proxy_set_header "
    "X-Forwarded-Host $host",
)
DOUBLED = Kind(
    "proxy-fix-doubled",
    Severity.MEDIUM,
    "Werkzeug's ProxyFix and server.trusted_proxies both read forwarding headers",
    "what ProxyFix took for the client is then asked for another one (ASVS 4.1.3, 15.3.4)",
    "remove ProxyFix, or server: {trusted_proxies: []}",
)

_WIDEST = {4: 12, 6: 24}  # prefixes of the widest networks that large CDNs publish are longer
_MONTH = 30 * 86_400.0


@finds(WIDE)
def wide_networks(subject: Subject) -> Iterator[Finding]:
    """Look how many addresses are trusted."""
    for proxy in subject.settings.server.trusted_proxies:
        if proxy == UNIX:
            continue
        network = ip_network(proxy)
        if not network.is_private and network.prefixlen < _WIDEST[network.version]:
            where = f"{subject.at('server.trusted_proxies')}: {proxy}"
            yield WIDE.at(where, network=proxy)


@finds(NOT_TRUSTED, STRANGER)
def ignored_headers(subject: Subject) -> Iterator[Finding]:
    """Read what requests of the last 30 days brought, from peers that are not trusted by now."""
    sightings = subject.state.guard.sightings
    proxies = subject.settings.server.trusted_proxies
    trusted = Networks(one for one in proxies if one != UNIX)
    for one in sightings.seen():
        if one.peer in proxies or trusted.contains(one.peer):
            continue
        if -86_400 < subject.now - one.seen_at < _MONTH:
            kind = NOT_TRUSTED if one.kind == NEAR else STRANGER
            yield kind.at(f"{sightings.field} from {one.peer}", peer=one.peer)


@finds(HOST)
def forwarded_hosts(subject: Subject) -> Iterator[Finding]:
    """Look whether the word of proxies about the host counts."""
    server = subject.settings.server
    if server.trust_forwarded_host and server.trusted_proxies:
        yield HOST.at(subject.at("server.trust_forwarded_host"))


@finds(DOUBLED)
def doubled_proxy_fix(subject: Subject) -> Iterator[Finding]:
    """Look whether two read the same headers."""
    outermost = subject.app.wsgi_app
    if isinstance(outermost, ProxyFix) and subject.settings.server.trusted_proxies:
        yield DOUBLED.at(f"app.wsgi_app: ProxyFix, and {subject.at('server.trusted_proxies')}")


CHECKS = (wide_networks, ignored_headers, forwarded_hosts, doubled_proxy_fix)
