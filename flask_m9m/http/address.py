"""Client address: finds the client behind trusted proxies (`X-Forwarded-*`, `Forwarded`).

Forwarding fields count only if the peer is a trusted proxy. They are read from the right, up to
the first hop that is not trusted: a client can invent anything further left (RFC 7239 §8.1). If a
hop is malformed, the last valid hop, a proxy, stands for the client; `Client.unreadable` tells.
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

_MAX_HOPS = 32
_LONGEST_LIST = 4_096  # characters of a list that are read, from the right
_MAX_PAIRS = 16  # per hop; RFC 7239 §5 defines four
_CACHE_SIZE = 4_096
_PORT = r"(?::[0-9_A-Za-z.-]+)?"
_NODE = re.compile(
    rf"\[(?P<v6>[0-9A-Fa-f:.]+)\]{_PORT}|(?P<v4>[0-9.]+){_PORT}|(?P<bare>[0-9A-Fa-f:.]+)"
)
_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
_HOST = re.compile(
    rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<v6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{{1,5}}))?"
)
_IS_SECURE = {"https": True, "wss": True, "http": False, "ws": False}
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # RFC 9110 §5.6.2
_PAIR = rf'({_TOKEN})=(?:({_TOKEN})|"([^"\\,]*(?:\\[^,][^"\\,]*)*)")'
_PAIRS = re.compile(rf"{_PAIR}(?:[ \t]*;[ \t]*{_PAIR})*;?")
_EACH_PAIR = re.compile(_PAIR)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class ProxyHeader(StrEnum):
    """The forwarding fields that the proxies write; the others are ignored."""

    X_FORWARDED = "x-forwarded"
    FORWARDED = "forwarded"


@dataclass(frozen=True, slots=True)
class Client:
    """The client of a request.

    Attributes:
        address: the client's address, an IPv4-mapped one as IPv4; `None` over a
            Unix socket.
        key: the client's key for rate limits: its IPv4 address, or its IPv6 network.
        secure: whether the client used HTTPS.
        host: the requested host according to a trusted proxy; `None` if proxies are not trusted
            for it, or sent none that is valid.
        forwarded: whether a trusted proxy sent the request.
        unreadable: whether the proxy's fields do not name the client in a readable way, so that
            the address is a proxy's.
    """

    address: str | None
    key: str
    secure: bool
    host: str | None = None
    forwarded: bool = field(default=False, compare=False)
    unreadable: bool = field(default=False, compare=False)


class Hop(NamedTuple):
    """One hop, as the proxy after it describes it; `node` is `None` if it sent no such field."""

    node: str | None
    scheme: str | None
    host: str | None


class Networks:
    """A set of IP networks.

    Args:
        networks: addresses and CIDR networks.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(ip_network(network) for network in networks)
        self.contains = lru_cache(_CACHE_SIZE)(self._contains)
        """Tell whether an address, in the form of `Client.address`, is in one of the networks."""

    def admit(self, client: Client) -> bool:
        """Tell whether a client is in one of the networks.

        A client whose address is unreadable is in none, even if its proxy is.
        """
        return not client.unreadable and self.contains(client.address)

    def _contains(self, address: str | None) -> bool:
        parsed = parse_address(address or "")
        return parsed is not None and any(parsed in network for network in self._networks)


class AddressResolver:
    """Finds the client behind a request.

    Args:
        trusted_proxies: addresses and networks whose forwarding fields count; `unix` is any peer
            on a Unix socket.
        header: the forwarding fields that the proxies write.
        ipv6_prefix: the length of an IPv6 network in bits; rate limits count it as one client.
            Networks that contain IPv4 clients (6to4, NAT64) are no exception.
        trust_forwarded_host: whether to trust a proxy for the host.
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
        self._trusted = Networks(proxy for proxy in proxies if proxy != UNIX)
        self._read_hops = _READERS[header]
        self._ipv6_prefix = ipv6_prefix
        self._trust_forwarded_host = trust_forwarded_host
        self._client = lru_cache(_CACHE_SIZE)(self._make_client)

    def resolve(self, environ: WSGIEnvironment) -> Client:
        """Find the client of a request; malformed fields never raise an error."""
        peer = environ.get("REMOTE_ADDR") or ""
        client = self._client(peer, environ["wsgi.url_scheme"] == "https")
        if not self._trusts_any or not self._is_trusted(client, peer):
            return client
        return self._resolve_forwarded(environ, client)

    def key_of(self, address: str) -> str | None:
        """Return the rate limits' key for an address; `None` if the text is not an address."""
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

    def _resolve_forwarded(self, environ: WSGIEnvironment, peer: Client) -> Client:
        client, secure, host, unreadable = peer, peer.secure, None, False
        for number, hop in enumerate(self._read_hops(environ)):
            if number == 0:
                secure = _IS_SECURE.get(hop.scheme or "", secure)
                if self._trust_forwarded_host and is_host(hop.host or ""):
                    host = hop.host
            address = parse_node(hop.node or "")
            if address is None or number == _MAX_HOPS:
                unreadable = hop.node is not None
                break
            client = self._client(str(address), secure)
            if not self._trusted.contains(client.address):
                break
        return replace(client, secure=secure, host=host, forwarded=True, unreadable=unreadable)


def parse_address(text: str) -> Address | None:
    """Parse an address, an IPv4-mapped one as IPv4, without its zone; `None` if it is invalid."""
    if len(text) > 100:
        return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def parse_node(text: str) -> Address | None:
    """Parse the address of a node (RFC 7239 §6): `192.0.2.1:80`, `[2001:db8::1]:80`.

    The result is `None` for `unknown`, obfuscated identifiers and malformed text.
    """
    match = _NODE.fullmatch(text) if len(text) <= 100 else None
    return None if match is None else parse_address(match["v6"] or match["v4"] or match["bare"])


def is_host(text: str) -> bool:
    """Tell whether a text is a valid host for a URL, with or without a port."""
    match = _HOST.fullmatch(text) if len(text) <= 260 else None
    if match is None or int(match["port"] or 0) > 65_535:
        return False
    return match["v6"] is None or _is_ipv6(match["v6"])


def _is_ipv6(text: str) -> bool:
    try:
        return ip_address(text).version == 6
    except ValueError:
        return False


def _is_unix_socket(peer: str) -> bool:
    """Recognise the names of a Unix socket's peer in gunicorn, Werkzeug and other servers."""
    return peer in ("", "<local>") or peer.startswith("unix:")


def _read_x_forwarded(environ: WSGIEnvironment) -> Iterable[Hop]:
    """Yield the hops of `X-Forwarded-*`, the nearest first."""
    value = environ.get("HTTP_X_FORWARDED_FOR")
    nodes = [None] if value is None else _from_the_right(value) or [""]
    scheme = next(iter(_from_the_right(environ.get("HTTP_X_FORWARDED_PROTO", ""))), "").lower()
    host = next(iter(_from_the_right(environ.get("HTTP_X_FORWARDED_HOST", ""))), None)
    for node in nodes:
        yield Hop(node, scheme, host)


def _read_forwarded(environ: WSGIEnvironment) -> Iterable[Hop]:
    """Yield the hops of `Forwarded` (RFC 7239 §4), the nearest first.

    A comma inside a quoted value makes it malformed. Otherwise a client could open a quote, and
    so hide the element that the nearest proxy appends.
    """
    value = environ.get("HTTP_FORWARDED")
    if value is None:
        return
    for element in _from_the_right(value) or [""]:
        values: dict[str, str] = {}
        if element.count("=") <= _MAX_PAIRS and _PAIRS.fullmatch(element):
            for name, token, quoted in _EACH_PAIR.findall(element):
                value = token or _unescaped(quoted)
                if values.setdefault(name.lower(), value) != value:
                    values = {}
                    break
        yield Hop(values.get("for", ""), values.get("proto", "").lower(), values.get("host"))


def _unescaped(quoted: str) -> str:
    """Replace the quoted pairs of a quoted string (RFC 9110 §5.6.4) by their second characters."""
    # No field has a surrogate. A regular expression would take twenty times as long.
    return quoted.replace("\\\\", "\ud800").replace("\\", "").replace("\ud800", "\\")


def _from_the_right(value: str) -> list[str]:
    """Split the last items off a list (RFC 9110 §5.6.1), the last first.

    Of a longer list than anybody sends, the first item of its end is empty: it may be cut.
    """
    if not value:
        return []
    items = value[-_LONGEST_LIST:].rsplit(",", _MAX_HOPS + 1)
    if len(value) > _LONGEST_LIST:
        items[0] = ""
    return [item.strip(" \t") for item in reversed(items)]


_READERS: dict[ProxyHeader, Callable[[WSGIEnvironment], Iterable[Hop]]] = {
    ProxyHeader.X_FORWARDED: _read_x_forwarded,
    ProxyHeader.FORWARDED: _read_forwarded,
}
