"""Ignored forwarding: a log of `X-Forwarded-For` and `Forwarded` fields from untrusted peers.

If a proxy is missing in `server.trusted_proxies`, every client behind it has the proxy's address:
all clients share its rate limit and its lockout. No request fails then, so each process logs a
warning once, and writes the last such peers to a small file that `flask m9m doctor` reads:

    {"near": ["10.0.0.7", 1750000000.0], "far": ["8.8.8.8", 1750003600.0]}

`near` is the last peer of this machine or of a private network, probably the app's own proxy.
`far` is the last peer with any other address, probably a client that forged the field. The
numbers are seconds since the epoch.
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
_INTERVAL = 3_600.0  # seconds between two records of a kind
_LARGEST = 4_096  # bytes
_PROXY_FIX = "werkzeug.proxy_fix.orig"  # ProxyFix has applied the field already


class IgnoredField(NamedTuple):
    """A forwarding field that was ignored.

    Attributes:
        kind: `near` or `far`.
        peer: the address of the sender; `unix` over a Unix socket.
        seen_at: when the request came, in seconds since the epoch.
    """

    kind: str
    peer: str
    seen_at: float


class IgnoredForwardingLog:
    """Records ignored forwarding fields; each process at most once an hour for each kind.

    Args:
        header: the forwarding field that the app reads.
        directory: the directory of the file; without it nothing is recorded.
        clock: seconds since the epoch.

    Attributes:
        field: the name of the forwarding field.
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
        self._recorded: dict[str, float] = {}

    def check(self, environ: WSGIEnvironment, client: Client) -> None:
        """Record the forwarding field of a request, if it was ignored.

        Args:
            environ: the request.
            client: the client of the request; its address is the peer's if the field was ignored.
        """
        if self._key not in environ or client.forwarded or self._directory is None:
            return
        if _PROXY_FIX not in environ:
            self._record(self._directory, client.address or UNIX)

    def seen(self) -> list[IgnoredField]:
        """Return the last fields that the app's processes recorded; empty if unreadable."""
        found = []
        for kind, entry in self._read().items():
            match entry:
                case [str(peer), int() | float() as seen_at] if kind in (NEAR, FAR):
                    if peer == UNIX or parse_address(peer) is not None:
                        found.append(IgnoredField(kind, peer, float(seen_at)))
        return sorted(found)

    def _record(self, directory: SharedDirectory, peer: str) -> None:
        kind, now = _kind(peer), self._clock()
        last = self._recorded.get(kind)
        if last is not None and abs(now - last) < _INTERVAL:
            return
        if not self._recorded:
            logger.warning(
                "%s from %s was ignored: this peer is not trusted. If it is your proxy: "
                'server: {trusted_proxies: ["%s"]}',
                self.field,
                peer,
                peer,
            )
        self._recorded[kind] = now
        try:
            directory.make()
            self._write(directory, {**self._read(), kind: [peer, now]})
        except OSError:
            pass  # the request must not fail because of this

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
    """Make an app's log of ignored forwarding fields; opens no file yet.

    Args:
        header: the forwarding field that the app reads.
        path: the directory of the machine's rate limits, if one is set.
        app: identifies the app: its import name and instance path.
        private: whether to write no file, as in a test.
    """
    directory = None
    if not private:
        try:
            from ..processes.shared_directory import SharedDirectory

            directory = SharedDirectory(path, app)
        except (ImportError, OSError):  # no fcntl, or no directory for temporary files
            pass
    return IgnoredForwardingLog(header, directory)
