"""Peers: which networks may send a body, and whose connections count together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...http.address import AddressResolver, Client, Networks, ProxyHeader
from ...settings.server import ServerSettings

_FORWARDING = {"X-FORWARDED-FOR": "HTTP_X_FORWARDED_FOR", "FORWARDED": "HTTP_FORWARDED"}


class Peers:
    """The rules of `trusted_proxies` and `allowed_networks`, for connections and heads.

    Args:
        settings: the server's settings.
    """

    def __init__(self, settings: ServerSettings) -> None:
        header = ProxyHeader(settings.proxy_headers)
        self._resolver = AddressResolver(settings.trusted_proxies, header=header)
        networks = settings.allowed_networks
        self._networks = Networks(networks) if networks else None

    def key(self, peer: Any) -> str | None:
        """Return the key under which a peer's connections count.

        Args:
            peer: the socket's address.

        Returns:
            The IPv4 address or the IPv6 network of 64 bits; `None` for trusted proxies and Unix
            sockets, behind which there are many clients.
        """
        client = self._resolve(peer, ())
        return None if client.forwarded or client.address is None else client.key

    def admits(self, peer: Any, fields: Iterable[tuple[str, str]]) -> bool:
        """Tell whether the client of a request is in the allowed networks.

        Args:
            peer: the socket's address.
            fields: the request's header fields, their names in capitals.
        """
        if self._networks is None:
            return True
        return self._networks.admit(self._resolve(peer, fields))

    def _resolve(self, peer: Any, fields: Iterable[tuple[str, str]]) -> Client:
        environ: dict[str, Any] = {"wsgi.url_scheme": "http"}
        environ["REMOTE_ADDR"] = peer[0] if isinstance(peer, tuple) else ""
        for name, value in fields:
            if key := _FORWARDING.get(name):
                environ[key] = f"{environ[key]},{value}" if key in environ else value
        return self._resolver.resolve(environ)
