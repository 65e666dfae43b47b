"""BufferingWorker: a gunicorn worker that passes a request to a thread once it is complete.

gunicorn's own threads wait for the rest of a request, so a few slow clients can occupy all threads
and block all other clients. Here the poller receives requests, within the limits and timeouts of
the settings, and the threads only answer them. The poller also closes connections.

A worker has room for a number of connections, of each address too, and for a number of octets in
bodies. Where one is used up, a connection that is waiting for its client goes: the one that has
been without progress for longest, or the one with the largest body.
"""

from __future__ import annotations

import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any

from gunicorn import sock as gunicorn_sock
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.gthread import ThreadWorker

from ...processes.quiet import Quiet
from ...settings.server import ServerSettings
from .buffered_body import BufferSpace
from .connection import LINGER, Connection, Phase, Refused
from .peers import Peers

_SWEEP = 0.25  # seconds between two checks of the deadlines
_SILENT = (Phase.IDLE, Phase.HANDSHAKE)
_BEGUN = (Phase.HEAD, Phase.BODY)
_TURN = 16  # events after which new connections get a turn
_LOG_INTERVAL = 60.0  # seconds between two log lines about the same limit
_UNAVAILABLE = "503 Service Unavailable"


class BufferingWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, with a poller that receives requests for the threads."""

    settings = ServerSettings()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        limits = self.settings.limits
        self._waiting: set[Connection] = set()
        self._by_address: defaultdict[str, set[Connection]] = defaultdict(set)
        self._peers = Peers(self.settings)
        self._space = BufferSpace(max(limits.max_buffered_size, limits.max_body_size))
        self._quiet = Quiet(_LOG_INTERVAL, time.monotonic)
        self._swept = 0.0

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events and handle them; among many, new connections get their turns."""
        try:
            events = self.poller.select(timeout)
        except InterruptedError:
            return
        for number, (key, _) in enumerate(events, 1):
            key.data(key.fileobj)
            if number % _TURN == 0 and self._accepting:
                for listener in self.sockets:
                    self.accept(listener)

    def accept(self, listener: Any) -> None:
        """Accept a connection from a listener, and start to receive its first request."""
        if self.nr_conns >= self.worker_connections:
            return
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if times := self._quiet.record("accept"):
                self.log.error("Cannot accept a connection (%d times): %s", times, error.strerror)
            # For example no free descriptor: existing connections are still served.
            if not self._drop_slowest(self._waiting):
                time.sleep(0.05)
            return
        client.setblocking(False)
        try:
            if self.cfg.is_ssl:
                context = gunicorn_sock.ssl_context(self.cfg)
                client = context.wrap_socket(
                    client, server_side=True, do_handshake_on_connect=False
                )
            place = listener.getsockname()
            connection = Connection(
                self.cfg, client, address, place, self.settings, self._peers, self._space
            )
        except OSError:  # the client has gone already
            client.close()
            return
        self.nr_conns += 1
        if self._has_place(connection):
            self._advance(connection)
        self._make_room()

    def _has_place(self, connection: Connection) -> bool:
        """Count a new connection for its address; tell whether it may stay."""
        key = connection.key
        if key is None:
            return True
        same, limit = self._by_address[key], self.settings.limits.max_connections_per_address
        same.add(connection)
        if len(same) <= limit:
            return True
        self._warn("max_connections_per_address", limit, "a connection")
        if self._drop_slowest(same):
            return True
        with suppress(OSError):  # all of the others are being answered
            connection.refuse(_UNAVAILABLE)
        self._drop(connection)
        return False

    def _make_room(self) -> None:
        """Keep a place free for a new connection."""
        if self.nr_conns >= self.worker_connections and self._drop_slowest(self._waiting):
            self._warn("max_connections", self.worker_connections, "a connection")

    def _drop_slowest(self, connections: Iterable[Connection]) -> bool:
        """Drop the connection without progress for longest, if one waits for its client."""
        waiting = (connection for connection in connections if connection in self._waiting)
        slowest = min(waiting, key=attrgetter("progress"), default=None)
        if slowest is None:
            return False
        self._forget(slowest)
        if slowest.phase in _BEGUN:
            with suppress(OSError):
                slowest.refuse(_UNAVAILABLE)
        self._drop(slowest)
        return True

    def _make_space(self, connection: Connection) -> bool:
        """Refuse the largest bodies until the others have space; tell whether this one stays."""
        space = self._space
        while space.held > space.limit:
            waiting = (other for other in self._waiting if other.phase is Phase.BODY)
            largest = max(waiting, key=lambda other: other.body.held, default=connection)
            if largest.body.held <= connection.body.held:
                largest = connection
            self._warn("max_buffered_size", space.limit, "a body")
            self._forget(largest)
            self._refuse(largest, Refused(_UNAVAILABLE))
            if largest is connection:
                return False
        return True

    def _warn(self, setting: str, limit: int, dropped: str) -> None:
        if times := self._quiet.record(setting):
            message = "server.limits.%s (%d) is used up: dropped %s (%d times since the last line)"
            self.log.warning(message, setting, limit, dropped, times)

    def _advance(self, connection: Connection) -> None:
        """Receive octets; pass a complete request to a thread, or wait for more."""
        try:
            event = 0 if connection.phase is Phase.COMPLETE else connection.receive()
        except Refused as refusal:
            self._refuse(connection, refusal)
        except OSError as error:
            self.log.debug("Connection ended: %s", error)
            self._drop(connection)
        except Exception:
            self.log.exception("Error while receiving a request")
            self._drop(connection)
        else:
            if connection.body.held and not self._make_space(connection):
                return
            if event:
                self._wait(connection, event, self._advance)
            else:
                self.enqueue_req(connection)

    def _wait(self, connection: Connection, event: int, then: Callable[[Connection], None]) -> None:
        """Wait for an event on a connection, or its deadline; then call a function with it."""
        self._waiting.add(connection)
        self.poller.register(connection.sock, event, partial(self._wake, connection, then))

    def _wake(self, connection: Connection, then: Any, sock: Any) -> None:
        if connection in self._waiting:  # else it has been dropped since the poll
            self._forget(connection)
            then(connection)

    def _forget(self, connection: Connection) -> None:
        self._waiting.discard(connection)
        with suppress(KeyError, ValueError):
            self.poller.unregister(connection.sock)

    def _refuse(self, connection: Connection, refusal: Refused) -> None:
        if refusal.fault and (times := self._quiet.record(refusal.fault)):
            self.log.error("Refused a request (%d times): %s", times, refusal.fault)
        with suppress(OSError):
            connection.refuse(refusal.status)
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        """Close a connection in steps (RFC 9112 §9.6), without blocking the others."""
        try:
            connection.begin_closing()
        except OSError:
            self._drop(connection)
        else:
            self._drain(connection)

    def _drain(self, connection: Connection) -> None:
        try:
            drained = connection.drain()
        except OSError:
            drained = True
        if drained:
            self._drop(connection)
        else:
            self._wait(connection, 1, self._drain)

    def _drop(self, connection: Connection) -> None:
        self.nr_conns -= 1
        if connection.key is not None:
            same = self._by_address[connection.key]
            same.discard(connection)
            if not same:
                del self._by_address[connection.key]
        with suppress(OSError):
            connection.close()

    def handle(self, connection: Connection) -> bool:
        """Answer a request, in a thread; tell whether to keep the connection open."""
        request = connection.request
        try:
            connection.sock.settimeout(self.settings.timeouts.write)
            if connection.failure is not None:
                raise connection.failure
            return bool(self.handle_request(request, connection))
        except (NoMoreData, StopIteration, ssl.SSLError, ConnectionError, TimeoutError) as error:
            self.log.debug("Connection ended: %s", error)
        except OSError:
            self.log.exception("Socket error while processing a request")
        except Exception as error:
            self.handle_error(request, connection.sock, connection.client, error)
        return False

    def finish_request(self, connection: Connection, future: Any) -> None:
        """Keep a connection open for its next request, or close it."""
        keep_alive = not future.cancelled() and future.exception() is None and future.result()
        try:
            connection.sock.setblocking(False)
            if keep_alive:
                connection.await_next()
        except Refused as refusal:
            self._refuse(connection, refusal)
        except OSError:
            self._drop(connection)
        else:
            if keep_alive:
                self._advance(connection)
            else:
                self._close(connection)

    def murder_keepalived(self, force: bool = False) -> None:
        """Close the connections whose deadline has passed; with `force`, all."""
        self._make_room()
        now = time.monotonic()
        if now - self._swept < _SWEEP and not force:
            return
        self._swept = now
        for connection in list(self._waiting):
            if not self.alive and connection.phase in _SILENT:
                connection.deadline = min(connection.deadline, now + LINGER)
            if connection.deadline <= now or force:
                self._forget(connection)
                self._end(connection)

    def _end(self, connection: Connection) -> None:
        if connection.phase in _BEGUN:
            self._refuse(connection, Refused("408 Request Timeout"))
        else:
            self._drop(connection)
