"""Connection: receives whole requests without blocking, up to the limits and deadlines."""

from __future__ import annotations

import os
import selectors
import ssl
import time
from contextlib import suppress
from enum import Enum
from io import BytesIO
from socket import SHUT_WR, socket
from typing import Any

from gunicorn.http.errors import InvalidHeader
from werkzeug.exceptions import Forbidden, HTTPException, RequestEntityTooLarge

from ...settings.server import ServerSettings
from .buffered_body import BufferedBody, BufferSpace, Received, Unreceived
from .framing import ChunkedDecoder, ContentTooLarge, StrictParser, UnknownCoding
from .peers import Peers

_CHUNK = 65_536  # octets that are received at once
_ROUNDS = 4  # receptions in a row before the other connections get a turn
LINGER = 2.0  # seconds that a client gets to close its side, or to send more
_MAX_LINGER = 10.0  # seconds that a client gets if it still sends
_HEAD_END = b"\r\n\r\n"
_WAIT_READ, _WAIT_WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Phase(Enum):
    """The state of a connection: what it is waiting for."""

    HANDSHAKE = "handshake"
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    COMPLETE = "complete"
    CLOSING = "closing"


class Refused(Exception):
    """The server refuses the request itself, with a status and an empty body.

    Attributes:
        status: the response's status code and reason.
        fault: what is wrong with the server, for its log; "" if nothing is.
    """

    def __init__(self, status: str, fault: str = "") -> None:
        super().__init__(status)
        self.status = status
        self.fault = fault


class Connection:
    """A client's connection, which receives whole requests without blocking.

    gunicorn's worker reads the attributes `sock`, `client` and `server`.

    Args:
        cfg: gunicorn's configuration.
        sock: the socket, in non-blocking mode; with TLS, an `SSLSocket`.
        client: the client's address.
        server: the listener's address.
        settings: the limits and timeouts.
        peers: decides whose bodies are received.
        space: counts what the bodies of the worker's connections hold.

    Attributes:
        deadline: when the current phase ends, in seconds of the monotonic clock.
        progress: the time up to which the client has kept pace: received octets move it on, at
            most up to now, one second for each `min_body_rate`.
        request: gunicorn's request, once its head is complete.
        failure: the parser's error, if the request is invalid; raised again in the thread.
        body: the content received so far.
        key: the key under which the address' connections count; `None` if they do not.
    """

    def __init__(
        self,
        cfg: Any,
        sock: socket,
        client: Any,
        server: Any,
        settings: ServerSettings,
        peers: Peers,
        space: BufferSpace,
    ) -> None:
        self.sock = sock
        self.client = client
        self.server = server
        self.phase = Phase.HANDSHAKE if isinstance(sock, ssl.SSLSocket) else Phase.IDLE
        self.progress = time.monotonic()
        self.deadline = self.progress + settings.timeouts.header
        self.request: Any = None
        self.failure: Exception | None = None
        self.body = BufferedBody(space)
        self.unreader = Received(sock)
        self.parser = StrictParser(cfg, sock, client)
        self.parser.unreader = self.unreader
        self.key = peers.key(client)
        self._peers = peers
        self._limits = settings.limits
        self._timeouts = settings.timeouts
        self._head = bytearray()
        self._rest = b""  # octets after the last request
        self._started_at = 0.0
        self._missing = 0
        self._chunks: ChunkedDecoder | None = None

    def await_next(self) -> None:
        """Wait for the next request; its first part may have been received already."""
        self._forget_body()
        self.request = self.failure = self._chunks = None
        self.phase = Phase.IDLE
        self.progress = time.monotonic()
        self.deadline = self.progress + self._timeouts.keep_alive
        rest, self._rest = self._rest, b""
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
            exact = self.phase is Phase.BODY and self._chunks is None
            data = self.sock.recv(min(self._missing, _CHUNK) if exact else _CHUNK)
            if not data:
                raise ConnectionResetError
            if self.phase is Phase.BODY:
                self._take_body_part(data)
            else:
                self._take_head(data)
        return 0

    def _take_head(self, data: bytes) -> None:
        if self.phase is Phase.IDLE:
            self.phase = Phase.HEAD
            self._started_at = self.progress = time.monotonic()
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
        except UnknownCoding:
            raise Refused("501 Not Implemented") from None
        except Exception as error:  # `BufferingWorker.handle` raises it again
            self.failure = error
            return
        self._begin_body()

    def _begin_body(self) -> None:
        """Determine how much of the body is missing, and whether the server receives it."""
        request, received = self.request, self.unreader.take_buffered()
        self._missing = 0 if request.chunked else request.body.reader.length
        if not request.chunked and not self._missing:
            self._rest = received
            self._end_body()
        elif not self._peers.admits(self.client, request.headers):
            self._leave_unreceived(Forbidden)
        elif self._missing > self._limits.max_body_size:
            self._leave_to_app(received)
        else:
            if request.chunked:
                limits = self._limits
                self._chunks = ChunkedDecoder(limits.max_body_size, limits.max_header_size)
            self.phase = Phase.BODY
            self.progress = time.monotonic()
            self._take_body_part(received)
            if self.phase is Phase.BODY and request._expected_100_continue:
                self.sock.send(_CONTINUE)
            request._expected_100_continue = False

    def _take_body_part(self, data: bytes) -> None:
        try:
            if self._chunks is None:
                content, rest = data[: self._missing], data[self._missing :]
                self._missing -= len(content)
                ended = not self._missing
            else:
                content = self._chunks.decode(data)
                rest = self._chunks.rest or b""
                ended = self._chunks.rest is not None
                if self._chunks.trailer:
                    self.request.parse_headers(self._chunks.trailer, from_trailer=True)
        except ContentTooLarge:
            self._leave_unreceived(RequestEntityTooLarge)
        except Exception as error:  # `BufferingWorker.handle` raises it again
            self.failure = error
            self.phase = Phase.COMPLETE
        else:
            self._keep(content)
            if ended:
                self._rest = rest
                self._end_body()
            else:
                self._note_progress(len(content))

    def _keep(self, content: bytes) -> None:
        if content:
            try:
                self.body.write(content)
            except OSError as error:  # not the client's, whose connection `receive` would blame
                fault = f"a body cannot be stored: {error.strerror}"
                raise Refused("503 Service Unavailable", fault) from error

    def _note_progress(self, octets: int) -> None:
        earned = self.progress + octets / self._limits.min_body_rate
        self.progress = min(time.monotonic(), earned)
        self.deadline = min(self.unreader.deadline, self.progress + self._timeouts.body)

    def _end_body(self) -> None:
        """Let the app read the body, whose length is known now (RFC 9112 §7.1.3)."""
        self.phase = Phase.COMPLETE
        if self._chunks is not None:
            self.request.headers.append(("CONTENT-LENGTH", str(self.body.held)))
        self.body.file.seek(0)
        self.request.body = self.body.file

    def _leave_to_app(self, received: bytes) -> None:
        """Let the app read or refuse a body larger than `max_body_size`."""
        self.phase = Phase.COMPLETE
        self.unreader.unread(received)
        self.unreader.invitation = _CONTINUE * self.request._expected_100_continue
        self.unreader.unlimited = True
        self.request._expected_100_continue = False  # or gunicorn would send it at once
        self.request.force_close()

    def _leave_unreceived(self, error: type[HTTPException]) -> None:
        """Let the app answer without the body; an error is raised if it reads it.

        Werkzeug would otherwise cut a body that is too large off, without an error.
        """
        self.phase = Phase.COMPLETE
        self._chunks = None
        self.body.clear()
        self.request._expected_100_continue = False
        self.request.body = Unreceived(error)
        self.request.force_close()

    def refuse(self, status: str) -> None:
        """Send a response without a body, if the socket takes it at once."""
        retry = "Retry-After: 1\r\n" if status.startswith("503") else ""
        answer = f"HTTP/1.1 {status}\r\n{retry}Connection: close\r\nContent-Length: 0\r\n\r\n"
        self.sock.send(answer.encode())

    def begin_closing(self) -> None:
        """Close the server's side of the connection, and wait until the client closes its side.

        If the server closed both at once, a client that still sends could lose the response
        (RFC 9112 §9.6).
        """
        self._forget_body()
        self.phase = Phase.CLOSING
        self.progress = time.monotonic()
        self.deadline = self.progress + LINGER
        self.sock.setblocking(False)
        if isinstance(self.sock, ssl.SSLSocket):
            with suppress(OSError, ValueError):  # no handshake, or the client has not replied
                self.sock.unwrap()
        self.sock.shutdown(SHUT_WR)

    def drain(self) -> bool:
        """Discard what the client still sends; tell whether it has closed its side.

        With TLS these are records that nobody decrypts any more.
        """
        with suppress(BlockingIOError):
            for _ in range(_ROUNDS):
                if not os.read(self.sock.fileno(), _CHUNK):
                    return True
                still_sends = time.monotonic() + LINGER
                self.deadline = min(self.progress + _MAX_LINGER, still_sends)
        return False

    def close(self) -> None:
        """Close the socket and delete the received octets."""
        self.sock.close()
        self._forget_body()

    def _forget_body(self) -> None:
        self.body.clear()
        if self.request is not None:
            self.request.body = BytesIO()  # the parser expects a body that was read to its end
