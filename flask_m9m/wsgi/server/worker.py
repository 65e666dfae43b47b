"""BufferingWorker: a gunicorn worker that passes a request to a thread once it is complete.

gunicorn's own threads wait for the rest of a request, so a few slow clients can occupy all threads
and block all other clients. Here the poller receives requests, within the limits and timeouts of
the settings, and the threads only answer them. The poller also closes connections.
"""

from __future__ import annotations

import ssl
import time
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn import sock as gunicorn_sock
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.gthread import ThreadWorker

from ...settings.server import ServerSettings
from .connection import Connection, Phase, Refused

_SWEEP = 0.25  # seconds between two checks of the deadlines
_SILENT = (Phase.IDLE, Phase.HANDSHAKE)
_LINGER = 2.0  # seconds that a client gets to close its side


class BufferingWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, with a poller that receives requests for the threads."""

    settings = ServerSettings()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: set[Connection] = set()
        self._swept = 0.0

    def accept(self, listener: Any) -> None:
        """Accept a connection from a listener, and start to receive its first request."""
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # For example no free descriptor: existing connections are still served.
            self.log.error("Cannot accept a connection: %s", error.strerror)
            time.sleep(0.05)
            return
        client.setblocking(False)
        try:
            if self.cfg.is_ssl:
                context = gunicorn_sock.ssl_context(self.cfg)
                client = context.wrap_socket(
                    client, server_side=True, do_handshake_on_connect=False
                )
            connection = Connection(
                self.cfg, client, address, listener.getsockname(), self.settings
            )
        except OSError:  # the client has gone already
            client.close()
            return
        self.nr_conns += 1
        self._advance(connection)
        if self.nr_conns >= self.worker_connections:
            self._make_room()

    def _make_room(self) -> None:
        """Drop the connection that has been silent for longest, for a new one."""
        silent = [connection for connection in self._waiting if connection.phase in _SILENT]
        if silent:
            longest = min(silent, key=lambda connection: connection.deadline)
            self._forget(longest)
            self._drop(longest)

    def _advance(self, connection: Connection) -> None:
        """Receive octets; pass a complete request to a thread, or wait for more."""
        try:
            event = 0 if connection.phase is Phase.COMPLETE else connection.receive()
        except Refused as refusal:
            self._refuse(connection, refusal.status)
        except OSError as error:
            self.log.debug("Connection ended: %s", error)
            self._drop(connection)
        except Exception:
            self.log.exception("Error while receiving a request")
            self._drop(connection)
        else:
            if event:
                self._wait(connection, event, self._advance)
            else:
                self.enqueue_req(connection)

    def _wait(self, connection: Connection, event: int, then: Any) -> None:
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

    def _refuse(self, connection: Connection, status: str) -> None:
        with suppress(OSError):
            connection.refuse(status)
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        """Close a connection in steps (RFC 9112 §9.6), without blocking the others."""
        try:
            connection.begin_closing(_LINGER)
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
        with suppress(OSError):
            connection.close()

    def handle(self, connection: Connection) -> bool:
        """Answer a request, in a thread; tell whether to keep the connection open."""
        request = connection.request
        try:
            connection.sock.settimeout(self.settings.timeouts.write)
            if connection.failure is not None:
                raise connection.failure
            connection.decode()
            if not self.handle_request(request, connection):
                return False
            return bool(connection.parser.finish_body())  # the whole body has been received
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
            self._refuse(connection, refusal.status)
        except OSError:
            self._drop(connection)
        else:
            if keep_alive:
                self._advance(connection)
            else:
                self._close(connection)

    def murder_keepalived(self, force: bool = False) -> None:
        """Close the connections whose deadline has passed; with `force`, all."""
        now = time.monotonic()
        if now - self._swept < _SWEEP and not force:
            return
        self._swept = now
        for connection in list(self._waiting):
            if not self.alive and connection.phase in _SILENT:
                connection.deadline = min(connection.deadline, now + _LINGER)
            if connection.deadline <= now or force:
                self._forget(connection)
                self._end(connection)

    def _end(self, connection: Connection) -> None:
        if connection.phase in (Phase.HEAD, Phase.BODY):
            self._refuse(connection, "408 Request Timeout")
        else:
            self._drop(connection)
