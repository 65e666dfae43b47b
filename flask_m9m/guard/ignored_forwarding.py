"""IgnoredForwardingLog: forwarding fields that came from a peer whose word does not count.

Where a proxy is not listed under `server.trusted_proxies`, every client behind it has the proxy's
address: they share one rate limit, and one lockout. Nothing is broken then, so nothing says so
but this: once in a process's log, and in a small file that `flask m9m doctor` reads:

    {"near": ["10.0.0.7", 1750000000.0], "far": ["198.51.100.7", 1750003600.0]}

`near` is a peer of this machine or of a private network, most likely a proxy of one's own; `far` is
any other, and most likely a client that made the field up. Each is the last one seen.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from ..http.address import UNIX, Client, ProxyHeader, parse_address

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from ..processes.shared_directory import SharedDirectory

logger = logging.getLogger("flask_m9m")

NEAR, FAR = "near", "far"

_FIELDS = {
    ProxyHeader.X_FORWARDED: "X-Forwarded-For",
    ProxyHeader.FORWARDED: "Forwarded",
}
_FILE = "sightings.json"
_INTERVAL = 3_600.0  # seconds from one note of a kind to the next
_LARGEST = 4_096
_READ_BY_OTHERS = "werkzeug.proxy_fix.orig"  # ProxyFix has made the client the peer already


class IgnoredField(NamedTuple):
    """A forwarding field that did not count.

    Attributes:
        kind: `near` or `far`.
        peer: the address that sent it; `unix` over a Unix socket.
        seen_at: seconds since the epoch.
    """

    kind: str
    peer: str
    seen_at: float


class IgnoredForwardingLog:
    """Notes them, at most once an hour and process.

    Args:
        header: which forwarding field is looked for.
        directory: where the file lies; without one nothing is noted.
        clock: seconds since the epoch.

    Attributes:
        field: the field's name.
    """

    def __init__(
        self,
        header: ProxyHeader,
        directory: SharedDirectory | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.field = _FIELDS[header]
        self._key = "HTTP_" + self.field.upper().replace("-", "_")
        self._directory = directory
        self._clock = clock
        self._noted: dict[str, float] = {}

    def check(self, environ: WSGIEnvironment, client: Client) -> None:
        """Look at a request for a field that did not count.

        Args:
            environ: the request.
            client: who sent it, as far as it is believed.
        """
        if self._key not in environ or client.forwarded or self._directory is None:
            return
        if _READ_BY_OTHERS not in environ:
            self._note(self._directory, client.address or UNIX)

    def seen(self) -> list[IgnoredField]:
        """Return what any process of the app has noted; nothing where that cannot be read."""
        found = []
        for kind, entry in self._read().items():
            match entry:
                case [str(peer), int() | float() as seen_at] if kind in (NEAR, FAR):
                    if peer == UNIX or parse_address(peer) is not None:
                        found.append(IgnoredField(kind, peer, float(seen_at)))
        return sorted(found)

    def _note(self, directory: SharedDirectory, peer: str) -> None:
        kind, now = _kind(peer), self._clock()
        last = self._noted.get(kind)
        if last is not None and abs(now - last) < _INTERVAL:
            return
        if not self._noted:
            logger.warning(
                "%s from %s was ignored; if that is a proxy of yours: "
                'server: {trusted_proxies: ["%s"]}',
                self.field,
                peer,
                peer,
            )
        self._noted[kind] = now
        try:
            directory.make()
            self._write(directory, {**self._read(), kind: [peer, now]})
        except OSError:
            pass  # a request is not the one to suffer from that

    def _write(self, directory: SharedDirectory, seen: dict[str, object]) -> None:
        path = directory.path_of(_FILE)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(draft, flags, 0o600)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                json.dump(seen, file)
            os.rename(draft, path)
        finally:
            draft.unlink(missing_ok=True)

    def _read(self) -> dict[str, object]:
        if self._directory is None:
            return {}
        path = self._directory.path_of(_FILE)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                self._directory.check(path, os.fstat(descriptor))
                seen = json.loads(file.read(_LARGEST))
        except (OSError, ValueError):
            return {}
        return seen if isinstance(seen, dict) else {}


def _kind(peer: str) -> str:
    return NEAR if peer == UNIX or not ip_address(peer).is_global else FAR


def make_ignored_forwarding_log(
    header: ProxyHeader, path: str | None, app: tuple[str, str], *, private: bool
) -> IgnoredForwardingLog:
    """Make what notes an app's ignored; nothing is opened yet.

    Args:
        header: which forwarding field is looked for.
        path: the directory of the machine's rate limits, where one is set.
        app: what tells the app from others: its import name and instance path.
        private: whether this object of an app is to leave nothing behind, as in a test.
    """
    directory = None
    if not private:
        try:
            from ..processes.shared_directory import SharedDirectory

            directory = SharedDirectory(path, app)
        except (ImportError, OSError):  # no fcntl, or no directory for temporary files
            pass
    return IgnoredForwardingLog(header, directory)
