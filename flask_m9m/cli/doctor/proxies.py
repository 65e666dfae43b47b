"""Checks of reverse proxies: the peers whose forwarding headers are trusted."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from werkzeug.middleware.proxy_fix import ProxyFix

from ...guard.ignored_forwarding import NEAR
from ...http.address import UNIX, Networks
from .findings import Finding, Kind, Severity
from .subject import Subject, finds

WIDE = Kind(
    "proxies-wide",
    Severity.HIGH,
    "forwarding headers are trusted from a large part of the Internet",
    "<network> is more than your own proxies: any host in it can pretend to be any client, which "
    "evades limits and the lockout, and falsifies logs (RFC 7239 §8.1; ASVS 4.1.3, 15.3.4)",
    'list only your proxies instead of <network>: server: {trusted_proxies: ["10.0.0.0/8"]}',
)
NOT_TRUSTED = Kind(
    "proxy-not-trusted",
    Severity.MEDIUM,
    "an untrusted peer on this machine or in a private network sent forwarding headers",
    "<peer> sends forwarding headers and is not a trusted proxy: all clients behind it count as "
    "one address, so that one of them can lock out the others (ASVS 15.3.4)",
    'if <peer> is your proxy: server: {trusted_proxies: ["<peer>"]}',
)
STRANGER = Kind(
    "forwarding-from-stranger",
    Severity.LOW,
    "an untrusted public address sent forwarding headers",
    "<peer> is either a proxy that is missing in the settings, or a client that pretends to be "
    "another; its header was ignored (RFC 7239 §8.1; ASVS 4.1.3)",
    'if <peer> is your proxy: server: {trusted_proxies: ["<peer>"]}; otherwise block it in front '
    "of the app",
)
HOST = Kind(
    "forwarded-host-trusted",
    Severity.LOW,
    "the host name is taken from forwarding headers of trusted proxies",
    "the host name is taken from forwarding headers: if a proxy passes on this header from a "
    "client, the client chooses the host of redirects and of the check for cross-site requests "
    "(ASVS 4.1.3; RFC 7239 §8.1)",
    "server: {trust_forwarded_host: false}; or have the proxy set the header, in nginx: "
    "proxy_set_header X-Forwarded-Host $host;",
)
DOUBLED = Kind(
    "proxy-fix-doubled",
    Severity.MEDIUM,
    "Werkzeug's ProxyFix and server.trusted_proxies both read forwarding headers",
    "the client address that ProxyFix found is then treated as a proxy, so that limits, lockout "
    "and logs may use a wrong or forged address (ASVS 4.1.3, 15.3.4)",
    "remove ProxyFix, or server: {trusted_proxies: []}",
)

_WIDEST = {4: 12, 6: 24}  # by IP version; large CDNs publish narrower networks
_MONTH = 30 * 86_400.0


@finds(WIDE)
def wide_networks(subject: Subject) -> Iterator[Finding]:
    """Find trusted networks that are too large."""
    for proxy in subject.settings.server.trusted_proxies:
        if proxy == UNIX:
            continue
        network = ip_network(proxy)
        if not network.is_private and network.prefixlen < _WIDEST[network.version]:
            where = f"{subject.at('server.trusted_proxies')}: {proxy}"
            yield WIDE.at(where, network=proxy)


@finds(NOT_TRUSTED, STRANGER)
def ignored_headers(subject: Subject) -> Iterator[Finding]:
    """Read the forwarding headers of the last 30 days from peers that are still not trusted."""
    ignored_forwarding = subject.state.guard.ignored_forwarding
    proxies = subject.settings.server.trusted_proxies
    trusted = Networks(proxy for proxy in proxies if proxy != UNIX)
    for field in ignored_forwarding.seen():
        if field.peer in proxies or trusted.contains(field.peer):
            continue
        if -86_400 < subject.now - field.seen_at < _MONTH:
            kind = NOT_TRUSTED if field.kind == NEAR else STRANGER
            yield kind.at(f"{ignored_forwarding.field} from {field.peer}", peer=field.peer)


@finds(HOST)
def forwarded_hosts(subject: Subject) -> Iterator[Finding]:
    """Examine whether the forwarded host name is trusted."""
    server = subject.settings.server
    if server.trust_forwarded_host and server.trusted_proxies:
        yield HOST.at(subject.at("server.trust_forwarded_host"))


@finds(DOUBLED)
def doubled_proxy_fix(subject: Subject) -> Iterator[Finding]:
    """Find a ProxyFix that reads the same headers as our own settings."""
    outermost = subject.app.wsgi_app
    if isinstance(outermost, ProxyFix) and subject.settings.server.trusted_proxies:
        yield DOUBLED.at(f"app.wsgi_app: ProxyFix, and {subject.at('server.trusted_proxies')}")


CHECKS = (wide_networks, ignored_headers, forwarded_hosts, doubled_proxy_fix)
