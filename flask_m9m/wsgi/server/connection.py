"""Connection: receives whole requests without blocking, up to the limits and deadlines."""

from __future__ import annotations

import selectors
import ssl
import tempfile
import time
from contextlib import suppress
from enum import Enum
from functools import partial
from io import BytesIO
from socket import SHUT_WR, socket
from typing import IO, Any, NoReturn

from gunicorn.http import RequestParser
from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import InvalidHeader
from gunicorn.http.unreader import SocketUnreader
from werkzeug.exceptions import RequestEntityTooLarge

from ...settings.server import ServerSettings
from .framing import ChunkedBody

_CHUNK = 65_536  # octets that are received at once
_IN_MEMORY = 65_536  # octets of a body kept in memory; a longer body goes into a file
_ROUNDS = 16  # receptions in a row before the other connections get a turn
_HEAD_END = b"\r\n\r\n"
_WAIT_READ, _WAIT_WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Phase(Enum):
    """The state of a connection: what it is waiting for."""

    HANDSHAKE = "handshake"
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    COMPLETE = "complete"
    CLOSING = "closing"


class Refused(Exception):
    """The server refuses the request itself, with a status and an empty body."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Received(SocketUnreader):  # type: ignore[misc]
    """The octets received so far, as the source for gunicorn's parser.

    After them the parser sees the end of the connection, so that no thread waits for a client. The
    exception is a body larger than `max_body_size`, which an app reads only if its own limit is
    larger. The rest of that body is read from the socket, until `deadline`.

    Attributes:
        body: the body's octets.
        unlimited: whether to read the rest of the body from the socket.
        deadline: when that ends, in seconds of the monotonic clock.
    """

    def __init__(self, sock: socket) -> None:
        super().__init__(sock)
        self.body: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        self.unlimited = False
        self.deadline = 0.0

    def chunk(self, size_hint: int | None = None) -> bytes:
        data = self.body.read(max(size_hint or 0, _CHUNK))
        if data or not self.unlimited:
            return data
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            return b""
        timeout = self.sock.gettimeout()
        self.sock.settimeout(remaining)
        try:
            received: bytes = self.sock.recv(_CHUNK)
        except TimeoutError:
            return b""
        finally:
            self.sock.settimeout(timeout)
        return received

    def take_rest(self) -> bytes:
        """Return the octets after the last request, and drop the body of that request."""
        rest: bytes = self.take_buffered() + self.body.read()
        if self.body.tell():
            self.body.close()
            self.body = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        return rest


class TooLarge:
    """A body that is too large: reading it raises the error."""

    def read(self, size: int = -1) -> NoReturn:
        raise RequestEntityTooLarge

    readline = readlines = __next__ = read

    def __iter__(self) -> TooLarge:
        return self


class Connection:
    """A client's connection, which receives whole requests without blocking.

    gunicorn's worker reads the attributes `sock`, `client` and `server`.

    Args:
        cfg: gunicorn's configuration.
        sock: the socket, in non-blocking mode; with TLS, an `SSLSocket`.
        client: the client's address.
        server: the listener's address.
        settings: the limits and timeouts.

    Attributes:
        deadline: when the current phase ends, in seconds of the monotonic clock.
        request: gunicorn's request, once its head is complete.
        failure: the parser's error, if the head is invalid; raised again in the thread.
    """

    def __init__(
        self, cfg: Any, sock: socket, client: Any, server: Any, settings: ServerSettings
    ) -> None:
        self.sock = sock
        self.client = client
        self.server = server
        self.phase = Phase.HANDSHAKE if isinstance(sock, ssl.SSLSocket) else Phase.IDLE
        self.deadline = time.monotonic() + settings.timeouts.header
        self.request: Any = None
        self.failure: Exception | None = None
        self.unreader = Received(sock)
        self.parser = RequestParser(cfg, sock, client)
        self.parser.unreader = self.unreader
        self._limits = settings.limits
        self._timeouts = settings.timeouts
        self._head = bytearray()
        self._started_at = 0.0
        self._missing = 0
        self._chunked: ChunkedBody | None = None
        self._decoded: IO[bytes] | None = None
        # A chunked body has further octets, such as chunk sizes.
        self._max_chunked = 2 * settings.limits.max_body_size + _CHUNK

    def await_next(self) -> None:
        """Wait for the next request; its first part may have been received already."""
        self._forget_body()
        self.request = self.failure = self._chunked = None
        self.phase = Phase.IDLE
        self.deadline = time.monotonic() + self._timeouts.keep_alive
        rest = self.unreader.take_rest()
        if rest:
            self._take_head(rest)

    def receive(self) -> int:
        """Receive the octets that have arrived.

        Returns:
            The selector event to wait for; 0 when the request is complete.

        Raises:
            Refused: the server refuses the request.
            OSError: the connection has ended or failed.
        """
        try:
            if self.phase is Phase.HANDSHAKE:
                self.sock.do_handshake()  # type: ignore[attr-defined]
                self.phase = Phase.IDLE
            return self._receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return _WAIT_READ
        except ssl.SSLWantWriteError:
            return _WAIT_WRITE

    def _receive(self) -> int:
        rounds = 0
        while self.phase is not Phase.COMPLETE:
            # The selector does not see octets that TLS has read ahead.
            if rounds >= _ROUNDS and not getattr(self.sock, "pending", lambda: 0)():
                return _WAIT_READ
            rounds += 1
            exact = self.phase is Phase.BODY and self._chunked is None
            data = self.sock.recv(min(self._missing, _CHUNK) if exact else _CHUNK)
            if not data:
                raise ConnectionResetError
            if self.phase is Phase.BODY:
                self._take_body(data)
            else:
                self._take_head(data)
        return 0

    def _take_head(self, data: bytes) -> None:
        if self.phase is Phase.IDLE:
            self.phase = Phase.HEAD
            self._started_at = time.monotonic()
            self.deadline = self._started_at + self._timeouts.header
        searched = max(0, len(self._head) - len(_HEAD_END) + 1)
        self._head += data
        end = self._head.find(_HEAD_END, searched)
        if (len(self._head) if end < 0 else end) > self._limits.max_header_size:
            raise Refused("431 Request Header Fields Too Large")
        if end < 0:
            return
        self.unreader.unread(bytes(self._head))
        self._head.clear()
        self.phase = Phase.COMPLETE
        self.deadline = self.unreader.deadline = self._started_at + self._timeouts.request
        try:
            self.request = next(self.parser)
            if self.request.version >= (1, 1) and "HOST" not in dict(self.request.headers):
                raise InvalidHeader("HOST")  # RFC 9112 §3.2
        except Exception as error:  # `BufferingWorker.handle` raises it again
            self.failure = error
            return
        self._await_body()

    def _await_body(self) -> None:
        """Determine the body's length with the parser, and how much of it is missing."""
        reader = self.request.body.reader
        received = self.unreader.take_buffered()
        self.unreader.unread(received)
        if isinstance(reader, ChunkedReader):
            self._chunked = ChunkedBody()
            self._missing = self._max_chunked - len(received)
            complete = self._chunked.feed(received)
            if self._chunked.octets > self._limits.max_body_size:
                self._leave_unread()
                return
        else:
            self._missing = reader.length - len(received)
            complete = self._missing <= 0
            if reader.length > self._limits.max_body_size:
                self._leave_to_app()
                return
        if not complete:
            self.phase = Phase.BODY
            if self.request._expected_100_continue:
                self.request._expected_100_continue = False
                self.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take_body(self, data: bytes) -> None:
        self.unreader.body.write(data)
        self._missing -= len(data)
        if self._chunked is None:
            complete = self._missing <= 0
        elif self._missing <= 0:
            raise Refused("413 Content Too Large")
        else:
            complete = self._chunked.feed(data)
            if self._chunked.octets > self._limits.max_body_size:
                self._leave_unread()
                return
        if complete:
            self.unreader.body.seek(0)
            self.phase = Phase.COMPLETE

    def _leave_to_app(self) -> None:
        """Let the app read or refuse a body larger than `max_body_size`."""
        self.phase = Phase.COMPLETE
        self.unreader.unlimited = True
        self.request.force_close()

    def _leave_unread(self) -> None:
        """Refuse a chunked body that is too large, as soon as the app reads it.

        Otherwise Werkzeug would cut it off at the app's limit without an error.
        """
        self.phase = Phase.COMPLETE
        self._chunked = None
        self.request.body = TooLarge()
        self.request.force_close()

    def decode(self) -> None:
        """Decode a chunked body, so that the app gets a body of known length (RFC 9112 §7.1.3).

        Raises:
            Exception: the body is malformed; the error is gunicorn's parser's.
        """
        if self._chunked is None:
            return
        decoded = self._decoded = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        for data in iter(partial(self.request.body.read, _CHUNK), b""):
            decoded.write(data)
        fields = [field for field in self.request.headers if field[0] != "TRANSFER-ENCODING"]
        self.request.headers = [*fields, ("CONTENT-LENGTH", str(decoded.tell()))]
        decoded.seek(0)
        self.request.body = decoded

    def refuse(self, status: str) -> None:
        """Send a response without a body, if the socket takes it at once."""
        answer = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        self.sock.send(answer.encode())

    def begin_closing(self, seconds: float) -> None:
        """Close the server's side of the connection, and wait until the client closes its side.

        If the server closed both at once, a client that still sends could lose the response
        (RFC 9112 §9.6).

        Args:
            seconds: how long to wait for the client.
        """
        self.phase = Phase.CLOSING
        self.deadline = time.monotonic() + seconds
        self.sock.setblocking(False)
        if isinstance(self.sock, ssl.SSLSocket):
            with suppress(OSError, ValueError):  # no handshake, or the client has not replied
                self.sock.unwrap()
        self.sock.shutdown(SHUT_WR)

    def drain(self) -> bool:
        """Discard what the client still sends; tell whether it has closed its side."""
        with suppress(BlockingIOError):
            for _ in range(_ROUNDS):
                if not self.sock.recv(_CHUNK):
                    return True
        return False

    def close(self) -> None:
        """Close the socket and delete the received octets."""
        self.sock.close()
        self.unreader.body.close()
        self._forget_body()

    def _forget_body(self) -> None:
        if self._decoded is not None:
            self._decoded.close()
            self._decoded = None
            self.request.body = BytesIO()  # the parser expects a body that was read to its end
