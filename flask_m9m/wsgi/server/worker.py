"""A worker that hands a request to a thread once all of it has come.

gunicorn's own threads wait for the rest of a request, so that as many slow clients as there are
threads stop everybody else. Here the poller receives, up to the limits and within the timeouts of
the settings, and threads only answer. Closing gently is the poller's as well.
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

_SWEEP = 0.25  # seconds between looks at the deadlines
_SILENT = (Phase.IDLE, Phase.HANDSHAKE)
_LINGER = 2.0  # seconds that a client gets to close its side


class BufferingWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, between whose threads and the clients the poller stands."""

    settings = ServerSettings()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: set[Connection] = set()
        self._swept = 0.0

    def accept(self, listener: Any) -> None:
        """Take a connection from a listener."""
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of descriptors, say: those who are connected are served on.
            self.log.error("No connection could be accepted: %s", error.strerror)
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
        except OSError:  # it is gone already
            client.close()
            return
        self.nr_conns += 1
        self._advance(connection)
        if self.nr_conns >= self.worker_connections:
            self._make_room()

    def _make_room(self) -> None:
        """Drop the client that has been silent for longest, so that another can come."""
        silent = [one for one in self._waiting if one.phase in _SILENT]
        if silent:
            longest = min(silent, key=lambda one: one.deadline)
            self._forget(longest)
            self._drop(longest)

    def _advance(self, connection: Connection) -> None:
        """Receive what has come, and hand the request to a thread or wait for more."""
        try:
            event = 0 if connection.phase is Phase.COMPLETE else connection.receive()
        except Refused as refusal:
            self._refuse(connection, refusal.status)
        except OSError as error:
            self.log.debug("Connection ended: %s", error)
            self._drop(connection)
        except Exception:
            self.log.exception("Error receiving a request")
            self._drop(connection)
        else:
            if event:
                self._wait(connection, event, self._advance)
            else:
                self.enqueue_req(connection)

    def _wait(self, connection: Connection, event: int, then: Any) -> None:
        """Have a connection looked at again when an event comes, or its deadline."""
        self._waiting.add(connection)
        self.poller.register(connection.sock, event, partial(self._wake, connection, then))

    def _wake(self, connection: Connection, then: Any, sock: Any) -> None:
        if connection in self._waiting:  # else it was dropped since the poller looked
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
        """Close a connection gently, while the others are served."""
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
        """Answer a request, in a thread; tell whether another may follow."""
        request = connection.request
        try:
            connection.sock.settimeout(self.settings.timeouts.write)
            if connection.failure is not None:
                raise connection.failure
            connection.decode()
            if not self.handle_request(request, connection):
                return False
            return bool(connection.parser.finish_body())  # all of it is here
        except (NoMoreData, StopIteration, ssl.SSLError, ConnectionError, TimeoutError) as error:
            self.log.debug("Connection ended: %s", error)
        except OSError:
            self.log.exception("Socket error processing request.")
        except Exception as error:
            self.handle_error(request, connection.sock, connection.client, error)
        return False

    def finish_request(self, connection: Connection, future: Any) -> None:
        """Wait for the next request of a connection, or close it."""
        kept = not future.cancelled() and future.exception() is None and future.result()
        try:
            connection.sock.setblocking(False)
            if kept:
                connection.await_next()
        except Refused as refusal:
            self._refuse(connection, refusal.status)
        except OSError:
            self._drop(connection)
        else:
            if kept:
                self._advance(connection)
            else:
                self._close(connection)

    def murder_keepalived(self, force: bool = False) -> None:
        """Close the connections whose deadline is past, or all."""
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
