"""Where a request came from: the client's address, seen through trusted proxies.

Forwarding fields count only where the peer is a trusted proxy, and are read from the right, as
far as the hops are trusted themselves: whatever stands further left is the client's to invent
(RFC 7239 §8.1). At garbage the last good hop is the client.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

UNIX = "unix"

_MOST_HOPS = 32
_REMEMBERED = 4_096
_PORT = r"(?::[0-9_A-Za-z.-]+)?"
_NODE = re.compile(
    rf"\[(?P<v6>[0-9A-Fa-f:.]+)\]{_PORT}|(?P<v4>[0-9.]+){_PORT}|(?P<bare>[0-9A-Fa-f:.]+)"
)
_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # RFC 9110 §5.6.2
_PAIR = rf'({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\,]|\\[^,])*)")'
_PAIRS = re.compile(rf"{_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*;?")
_EACH_PAIR = re.compile(_PAIR)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class ProxyHeader(StrEnum):
    """Which forwarding fields the proxies write; the others are ignored."""

    X_FORWARDED = "x-forwarded"
    FORWARDED = "forwarded"


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request came from.

    Attributes:
        address: its address, IPv4-mapped ones as IPv4; `None` where there is none, as over a
            Unix socket.
        key: what its rate limits are counted under: the address, or its IPv6 network.
        secure: whether it came over HTTPS.
        host: the host that a trusted proxy says it asked for; `None` where none is believed.
        forwarded: whether a trusted proxy sent it.
    """

    address: str | None
    key: str
    secure: bool
    host: str | None = None
    forwarded: bool = field(default=False, compare=False)


class Hop(NamedTuple):
    """What one proxy says of the hop before it."""

    node: str | None
    scheme: str | None
    host: str | None


class Networks:
    """A set of networks.

    Args:
        networks: addresses and CIDR networks.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(ip_network(one) for one in networks)
        self.contains = lru_cache(_REMEMBERED)(self._contains)
        """Tell whether an address, as `Client.address` writes it, lies in one of them."""

    def _contains(self, address: str | None) -> bool:
        parsed = parse_address(address or "")
        return parsed is not None and any(parsed in network for network in self._networks)


class AddressResolver:
    """Finds the client behind a request.

    Args:
        trusted_proxies: addresses and networks whose forwarding fields count; `unix` stands for
            whoever connects over a Unix socket.
        header: which forwarding fields the proxies write.
        ipv6_prefix: IPv6 addresses that share so many bits are one client to rate limits.
            Networks that hold IPv4 clients (6to4, NAT64) are no exception.
        trust_forwarded_host: whether to believe a proxy about the host.
    """

    def __init__(
        self,
        trusted_proxies: Iterable[str] = (),
        *,
        header: ProxyHeader = ProxyHeader.X_FORWARDED,
        ipv6_prefix: int = 64,
        trust_forwarded_host: bool = False,
    ) -> None:
        proxies = tuple(trusted_proxies)
        self._trusts_any = bool(proxies)
        self._trusts_unix = UNIX in proxies
        self._trusted = Networks(one for one in proxies if one != UNIX)
        self._hops = _READERS[header]
        self._ipv6_prefix = ipv6_prefix
        self._trust_forwarded_host = trust_forwarded_host
        self._client = lru_cache(_REMEMBERED)(self._make_client)

    def resolve(self, environ: WSGIEnvironment) -> Client:
        """Return where a request came from; whatever it claims, never an error."""
        peer = environ.get("REMOTE_ADDR") or ""
        client = self._client(peer, environ["wsgi.url_scheme"] == "https")
        if not self._trusts_any or not self._is_trusted(client, peer):
            return client
        return self._forwarded(environ, client)

    def key_of(self, address: str) -> str | None:
        """Return what rate limits count an address under, or `None` where it is none."""
        if parse_address(address) is None:
            return UNIX if address == UNIX else None
        return self._client(address, False).key

    def _make_client(self, address: str, secure: bool) -> Client:
        parsed = parse_address(address)
        if parsed is None:
            return Client(None, UNIX, secure)
        key = text = str(parsed)
        if isinstance(parsed, IPv6Address):
            key = str(IPv6Network((int(parsed), self._ipv6_prefix), strict=False))
        return Client(text, key, secure)

    def _is_trusted(self, client: Client, peer: str) -> bool:
        if client.address is None:
            return self._trusts_unix and _is_unix_socket(peer)
        return self._trusted.contains(client.address)

    def _forwarded(self, environ: WSGIEnvironment, peer: Client) -> Client:
        client, secure, host = peer, peer.secure, None
        for number, hop in enumerate(self._hops(environ)):
            if number == 0:
                if hop.scheme in ("http", "https"):
                    secure = hop.scheme == "https"
                if self._trust_forwarded_host and is_host(hop.host or ""):
                    host = hop.host
            address = parse_node(hop.node or "")
            if address is None or number == _MOST_HOPS:
                break
            client = self._client(str(address), secure)
            if not self._trusted.contains(client.address):
                break
        return replace(client, secure=secure, host=host, forwarded=True)


def parse_address(text: str) -> Address | None:
    """Return an address, an IPv4-mapped one as IPv4, without a zone; `None` for anything else."""
    if len(text) > 100:
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def parse_node(text: str) -> Address | None:
    """Return the address of a node (RFC 7239 §6): `192.0.2.1:80`, `[2001:db8::1]:80`.

    `unknown`, obfuscated names and garbage are `None`.
    """
    match = _NODE.fullmatch(text) if len(text) <= 100 else None
    return None if match is None else parse_address(match["v6"] or match["v4"] or match["bare"])


def is_host(text: str) -> bool:
    """Tell whether a text is a host that may stand in a URL, with or without a port."""
    match = _HOST.fullmatch(text) if len(text) <= 260 else None
    return match is not None and int(match["port"] or 0) <= 65_535


def _is_unix_socket(peer: str) -> bool:
    """Tell how servers name the peer on a Unix socket: gunicorn, Werkzeug, others."""
    return peer in ("", "<local>") or peer.startswith("unix:")


def _x_forwarded(environ: WSGIEnvironment) -> Iterable[Hop]:
    """Yield the hops of `X-Forwarded-*`, the nearest first."""
    nodes = _from_the_right(environ.get("HTTP_X_FORWARDED_FOR", ""))
    scheme = next(iter(_from_the_right(environ.get("HTTP_X_FORWARDED_PROTO", ""))), "").lower()
    host = next(iter(_from_the_right(environ.get("HTTP_X_FORWARDED_HOST", ""))), None)
    for node in nodes or [""]:
        yield Hop(node, scheme, host)


def _forwarded(environ: WSGIEnvironment) -> Iterable[Hop]:
    """Yield the hops of `Forwarded` (RFC 7239 §4), the nearest first.

    A comma inside a quoted value counts as garbage: so nobody can hide what the nearest proxy
    wrote by opening a quote before it.
    """
    for element in _from_the_right(environ.get("HTTP_FORWARDED", "")):
        values: dict[str, str] = {}
        if _PAIRS.fullmatch(element):
            for name, token, quoted in _EACH_PAIR.findall(element):
                value = token or re.sub(r"\\(.)", r"\1", quoted)
                if values.setdefault(name.lower(), value) != value:
                    values = {}
                    break
        yield Hop(values.get("for"), values.get("proto", "").lower(), values.get("host"))


def _from_the_right(value: str) -> list[str]:
    """Return the last items of a list (RFC 9110 §5.6.1), the last first."""
    if not value:
        return []
    items = value.rsplit(",", _MOST_HOPS + 1)
    return [item.strip(" \t") for item in reversed(items)]


_READERS: dict[ProxyHeader, Callable[[WSGIEnvironment], Iterable[Hop]]] = {
    ProxyHeader.X_FORWARDED: _x_forwarded,
    ProxyHeader.FORWARDED: _forwarded,
}
