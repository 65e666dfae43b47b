"""Where the Redis servers are, as a URL says it; nothing of `redis` is needed to read one.

| form | servers |
|---|---|
| `redis://[user:password@]host[:port][/db]` | one |
| `unix://[user:password@]/path` | one, on this machine; the database is the parameter `db` |
| `redis+sentinel://[user:password@]host[:port],…/service[/db]` | the master that sentinels name |
| `redis+cluster://[user:password@]host[:port],…` | a cluster |

`rediss` in place of `redis` means TLS, and `valkey` and `valkeys` the same as `redis` and `rediss`.
User and password are the servers' own; sentinels have theirs in `sentinel_username` and
`sentinel_password`. Characters that a URL gives a meaning are percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

Address = tuple[str, int]
Kind = Literal["", "sentinel", "cluster"]

_SCHEME = re.compile(r"(?:(redis|valkey)(s?)(?:\+(sentinel|cluster))?|(unix))")
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]+))(?::(?P<port>[0-9]{1,5}))?")
_PORTS = {"": 6379, "sentinel": 26379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class RedisURL:
    """What a URL says.

    Attributes:
        kind: one server, or what tells which of several is asked.
        tls: whether connections are encrypted.
        addresses: hosts and ports, none where it is a socket file.
        path: the socket file.
        service: by what name sentinels know the master.
        db: the number of the database.
        login: user and password, as redis-py's connections take them.
        sentinel_login: those of the sentinels.
        options: the rest of what redis-py's connections take.
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
    """Check that a URL says where Redis servers are.

    Raises:
        ValueError: it does not; the message holds nothing of the URL.
    """
    read_url(url)


def read_url(url: str) -> RedisURL:
    """Read where the servers are.

    Raises:
        ValueError: the URL is of no known form; the message holds nothing of it.
    """
    scheme, separator, rest = url.partition("://")
    match = _SCHEME.fullmatch(scheme.lower())
    if match is None or not separator:
        raise ValueError(
            "a Redis URL begins with redis://, rediss://, unix://, redis+sentinel://, "
            "rediss+sentinel://, redis+cluster:// or rediss+cluster://"
        )
    if "#" in url or re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("a Redis URL holds no '#', space or control character: percent-encode it")
    rest, _, query = rest.partition("?")
    hosts, _, path = rest.partition("/")
    login, _, hosts = hosts.rpartition("@")
    kind: Any = match[3] or ""
    options = _options(query, kind, tls=bool(match[2]))
    sentinel_login = {
        name: options.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in options
    }
    number = options.pop("db", None)
    if match[4]:
        if hosts or not path:
            raise ValueError("unix:// is followed by the socket's absolute path: unix:///run/…")
        addresses: tuple[Address, ...] = ()
        service, text = "", ""
        path = f"/{unquote(path)}"
    else:
        addresses = tuple(_address(host, _PORTS[kind]) for host in hosts.split(","))
        service, text = _service_and_db(path, kind)
        path = ""
    if kind == "" and len(addresses) > 1:
        raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
    db = _db(text) if text else number or 0
    return RedisURL(
        kind, bool(match[2]), addresses, path, service, db, _login(login), sentinel_login, options
    )


def _address(text: str, port: int) -> Address:
    match = _HOST.fullmatch(text)
    if match is None or not 0 < int(match["port"] or port) < 65_536:
        raise ValueError(
            "a Redis URL names each server as host or host:port; "
            "percent-encode / ? # @ and : in a user's name and a password"
        )
    return match["ipv6"] or match["name"], int(match["port"] or port)


def _login(text: str) -> dict[str, str]:
    user, _, password = text.partition(":")
    named = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in named.items() if value}


def _service_and_db(path: str, kind: str) -> tuple[str, str]:
    """Tell the name of sentinels' service and the database apart."""
    if kind == "cluster":
        if path:
            raise ValueError("a Redis cluster has one database: leave out what follows the hosts")
        return "", ""
    if kind == "":
        return "", path
    service, _, db = path.partition("/")
    if not service:
        raise ValueError("redis+sentinel:// needs the service's name behind the hosts")
    return unquote(service), db


def _db(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError("the number of a Redis database has digits only")
    return int(text)


def _switch(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError("ssl_check_hostname is true or false")
    return text.lower() in ("true", "1", "yes")


def _verification(text: str) -> str:
    if text not in ("required", "optional", "none"):
        raise ValueError("ssl_cert_reqs is required, optional or none")
    return text


def _tls_version(text: str) -> int:
    versions = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304, "771": 0x0303, "772": 0x0304}
    if text not in versions:
        raise ValueError("ssl_min_version is TLSv1.2 or TLSv1.3")
    return versions[text]


_PARAMETERS: dict[str, Callable[[str], object]] = {
    "db": _db,
    "client_name": str,
    "sentinel_username": str,
    "sentinel_password": str,
    "ssl_cert_reqs": _verification,
    "ssl_check_hostname": _switch,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_min_version": _tls_version,
    "ssl_ciphers": str,
}


def _options(query: str, kind: str, *, tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in filter(None, query.split("&")):
        name, separator, value = part.partition("=")
        read = _PARAMETERS.get(name)
        if read is None or not separator:
            raise ValueError(f"the parameters of a Redis URL are {', '.join(_PARAMETERS)}")
        if name.startswith("ssl_") and not tls:
            raise ValueError("parameters for TLS need rediss:// in place of redis://")
        if name.startswith("sentinel_") and kind != "sentinel":
            raise ValueError("parameters for sentinels need redis+sentinel://")
        options[name] = read(unquote(value))
    if tls:
        # What redis-py 5 does where nothing is said is not to look whose certificate it is.
        verified = options.setdefault("ssl_cert_reqs", "required") != "none"
        options["ssl_check_hostname"] = options.get("ssl_check_hostname", True) and verified
    return options
