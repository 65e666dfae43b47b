"""Parsing the URLs of Redis and Valkey servers, sentinels and clusters, without redis-py.

| form | servers |
|---|---|
| `redis://[user:password@]host[:port][/db]` | a single server |
| `unix://[user:password@]/path` | a local server; the parameter `db` selects the database |
| `redis+sentinel://[user:password@]host[:port],…/service[/db]` | the master that sentinels name |
| `redis+cluster://[user:password@]host[:port],…` | a cluster |

`rediss` means TLS; `valkey` and `valkeys` are synonyms of `redis` and `rediss`. User and password
are those of the servers; for sentinels use the parameters `sentinel_username` and
`sentinel_password`. Reserved characters must be percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

Address = tuple[str, int]
Kind = Literal["", "sentinel", "cluster"]

_SCHEMES = (
    "redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster:// or "
    "rediss+cluster://"
)
_SCHEME = re.compile(r"(?:(redis|valkey)(s?)(?:\+(sentinel|cluster))?|(unix))")
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]+))(?::(?P<port>[0-9]{1,5}))?")
_PORTS = {"": 6379, "sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class RedisURL:
    """A parsed Redis URL.

    Attributes:
        kind: `sentinel`, `cluster`, or empty for a single server.
        tls: whether connections use TLS.
        addresses: hosts and ports; empty for a Unix socket.
        path: the path of the Unix socket, or empty.
        service: the service name of the master, for sentinels.
        db: the database number.
        login: the servers' `username` and `password`, as arguments of redis-py's connections.
        sentinel_login: the same for the sentinels.
        options: other arguments of redis-py's connections.
    """

    kind: Kind
    tls: bool
    addresses: tuple[Address, ...]
    path: str
    service: str
    db: int
    login: dict[str, str] = field(repr=False)
    sentinel_login: dict[str, str] = field(repr=False)
    options: dict[str, Any] = field(repr=False)


def check_url(url: str) -> None:
    """Check that a Redis URL is valid.

    Raises:
        ValueError: the URL is not valid; the message contains no part of it.
    """
    read_url(url)


def read_url(url: str) -> RedisURL:
    """Parse a Redis URL.

    Args:
        url: a URL in a form of the table above.

    Raises:
        ValueError: the URL is not valid; the message contains no part of it.
    """
    scheme, separator, rest = url.partition("://")
    match = _SCHEME.fullmatch(scheme.lower())
    if match is None or not separator:
        raise ValueError(f"a Redis URL must begin with {_SCHEMES}")
    if "#" in url or re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("percent-encode '#', spaces and control characters in a Redis URL")
    rest, _, query = rest.partition("?")
    hosts, _, path = rest.partition("/")
    login, _, hosts = hosts.rpartition("@")
    kind: Any = match[3] or ""
    options = _parse_options(query, kind, tls=bool(match[2]))
    sentinel_login = _pop_sentinel_login(options)
    number = options.pop("db", None)
    if match[4]:
        if hosts or not path:
            raise ValueError(
                "write the absolute path of the socket after unix://, such as unix:///run/…"
            )
        addresses: tuple[Address, ...] = ()
        service, text = "", ""
        path = f"/{unquote(path)}"
    else:
        addresses = tuple(_parse_address(host, _PORTS[kind]) for host in hosts.split(","))
        service, text = _split_path(path, kind)
        path = ""
    if kind == "" and len(addresses) > 1:
        raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
    db = _parse_db(text) if text else number or 0
    return RedisURL(
        kind,
        bool(match[2]),
        addresses,
        path,
        service,
        db,
        _parse_login(login),
        sentinel_login,
        options,
    )


def _pop_sentinel_login(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options for logging in to Sentinel out of the options of the connection."""
    return {
        name: options.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    }


def _parse_address(text: str, port: int) -> Address:
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match["port"] or port) < 65_536:
        raise ValueError(
            "write each server of a Redis URL as host or host:port; "
            "percent-encode / ? # @ and : in user name and password"
        )
    return match["ipv6"] or match["name"], int(match["port"] or port)


def _parse_login(text: str) -> dict[str, str]:
    user, _, password = text.partition(":")
    parts = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in parts.items() if value}


def _split_path(path: str, kind: str) -> tuple[str, str]:
    """Split a URL's path into the service name of sentinels and the database number."""
    if kind == "cluster":
        if path:
            raise ValueError(
                "a Redis cluster has only one database: remove the path after the hosts"
            )
        return "", ""
    if kind == "":
        return "", path
    service, _, db = path.partition("/")
    if not service:
        raise ValueError("redis+sentinel:// needs the service name after the hosts: …/service")
    return unquote(service), db


def _parse_db(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError("the database number of a Redis URL must consist of digits")
    return int(text)


def _parse_boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError("ssl_check_hostname must be true or false")
    return text.lower() in ("true", "1", "yes")


def _parse_verification(text: str) -> str:
    if text not in ("required", "optional", "none"):
        raise ValueError("ssl_cert_reqs must be required, optional or none")
    return text


def _parse_tls_version(text: str) -> int:
    versions = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304, "771": 0x0303, "772": 0x0304}
    if text not in versions:
        raise ValueError("ssl_min_version must be TLSv1.2 or TLSv1.3")
    return versions[text]


_PARAMETERS: dict[str, Callable[[str], object]] = {
    "db": _parse_db,
    "client_name": str,
    "sentinel_username": str,
    "sentinel_password": str,
    "ssl_cert_reqs": _parse_verification,
    "ssl_check_hostname": _parse_boolean,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_min_version": _parse_tls_version,
    "ssl_ciphers": str,
}


def _parse_options(query: str, kind: str, *, tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, separator, value = part.partition("=")
        read = _PARAMETERS.get(name)
        if read is None or not separator:
            raise ValueError(f"a Redis URL accepts only the parameters {', '.join(_PARAMETERS)}")
        if name.startswith("ssl_") and not tls:
            raise ValueError("parameters for TLS need rediss:// instead of redis://")
        if name.startswith("sentinel_") and kind != "sentinel":
            raise ValueError("parameters for sentinels need redis+sentinel://")
        options[name] = read(unquote(value))
    if tls:
        # By default redis-py 5 does not check the host name in the certificate.
        verified = options.setdefault("ssl_cert_reqs", "required") != "none"
        options["ssl_check_hostname"] = options.get("ssl_check_hostname", True) and verified
    return options
