"""A connection of the worker: what has come on it, and what is still to come."""

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
_IN_MEMORY = 65_536  # octets of a body that are kept in memory; the rest goes into a file
_ROUNDS = 16  # receptions in a row, before the other connections have their turn
_HEAD_END = b"\r\n\r\n"
_WAIT_READ, _WAIT_WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Phase(Enum):
    """What a connection waits for."""

    HANDSHAKE = "handshake"
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    COMPLETE = "complete"
    CLOSING = "closing"


class Refused(Exception):
    """The server itself answers, with a status and nothing more."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


class Received(SocketUnreader):  # type: ignore[misc]
    """What gunicorn's parser reads: octets that are here already.

    Where they end the connection seems to have ended, so that no thread ever waits for a
    client. The exception is a body beyond `max_body_size`, which only an app with a larger limit
    of its own reads: then its octets come from the socket, until `deadline`.
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
        """Return what has come beyond the last request, and forget that one's body."""
        rest: bytes = self.take_buffered() + self.body.read()
        if self.body.tell():
            self.body.close()
            self.body = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        return rest


class TooLarge:
    """A body that nobody reads."""

    def read(self, size: int = -1) -> NoReturn:
        raise RequestEntityTooLarge

    readline = readlines = __next__ = read

    def __iter__(self) -> TooLarge:
        return self


class Connection:
    """One client's connection, which receives whole requests without ever waiting.

    `sock`, `client` and `server` are what gunicorn's worker looks for.

    Args:
        cfg: gunicorn's configuration.
        sock: the socket, not blocking; wrapped already where TLS is served.
        client: the client's address.
        server: the listener's.
        settings: the limits and timeouts.
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
        self._begun = 0.0
        self._missing = 0
        self._chunked: ChunkedBody | None = None
        self._decoded: IO[bytes] | None = None
        self._most = 2 * settings.limits.max_body_size + _CHUNK  # octets, with those of chunks

    def await_next(self) -> None:
        """Wait for the next request, of which a part may be here."""
        self._forget_body()
        self.request = self.failure = self._chunked = None
        self.phase = Phase.IDLE
        self.deadline = time.monotonic() + self._timeouts.keep_alive
        rest = self.unreader.take_rest()
        if rest:
            self._take_head(rest)

    def receive(self) -> int:
        """Take in what has come.

        Returns:
            The event to wait for; 0 when the request is complete.

        Raises:
            Refused: the request is not taken.
            OSError: the connection is at its end, or broken.
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
            # What TLS has read ahead makes no socket readable.
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
            self._begun = time.monotonic()
            self.deadline = self._begun + self._timeouts.header
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
        self.deadline = self.unreader.deadline = self._begun + self._timeouts.request
        try:
            self.request = next(self.parser)
            if self.request.version >= (1, 1) and "HOST" not in dict(self.request.headers):
                raise InvalidHeader("HOST")  # RFC 9112 §3.2
        except Exception as error:  # raised again where it is answered
            self.failure = error
            return
        self._await_body()

    def _await_body(self) -> None:
        """Find out from the parser how long the body is, and how much of it is missing."""
        reader = self.request.body.reader
        here = self.unreader.take_buffered()
        self.unreader.unread(here)
        if isinstance(reader, ChunkedReader):
            self._chunked = ChunkedBody()
            self._missing = self._most - len(here)
            complete = self._chunked.feed(here)
            if self._chunked.octets > self._limits.max_body_size:
                self._leave_unread()
                return
        else:
            self._missing = reader.length - len(here)
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
        """Let the app decide about a body that is larger than is received for it."""
        self.phase = Phase.COMPLETE
        self.unreader.unlimited = True
        self.request.force_close()

    def _leave_unread(self) -> None:
        """Refuse a chunked body that is too large, when the app wants to read it.

        Werkzeug would cut it off at the app's limit and say nothing.
        """
        self.phase = Phase.COMPLETE
        self._chunked = None
        self.request.body = TooLarge()
        self.request.force_close()

    def decode(self) -> None:
        """Make a chunked body one of known length (RFC 9112 §7.1.3), before the app sees any of it.

        Raises:
            Exception: it is no such body; as gunicorn's parser raises.
        """
        if self._chunked is None:
            return
        decoded = self._decoded = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        for data in iter(partial(self.request.body.read, _CHUNK), b""):
            decoded.write(data)
        fields = [one for one in self.request.headers if one[0] != "TRANSFER-ENCODING"]
        self.request.headers = [*fields, ("CONTENT-LENGTH", str(decoded.tell()))]
        decoded.seek(0)
        self.request.body = decoded

    def refuse(self, status: str) -> None:
        """Answer without a body, where that needs no waiting."""
        answer = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        self.sock.send(answer.encode())

    def begin_closing(self, seconds: float) -> None:
        """Say that nothing more will come, and wait until the client says so too.

        Closing at once while it still sends could cost it the answer (RFC 9112 §9.6).
        """
        self.phase = Phase.CLOSING
        self.deadline = time.monotonic() + seconds
        self.sock.setblocking(False)
        if isinstance(self.sock, ssl.SSLSocket):
            with suppress(OSError, ValueError):  # there was no handshake, or it does not answer yet
                self.sock.unwrap()
        self.sock.shutdown(SHUT_WR)

    def drain(self) -> bool:
        """Take what still comes, and tell whether that was all."""
        with suppress(BlockingIOError):
            for _ in range(_ROUNDS):
                if not self.sock.recv(_CHUNK):
                    return True
        return False

    def close(self) -> None:
        """Let go of the socket and of what came."""
        self.sock.close()
        self.unreader.body.close()
        self._forget_body()

    def _forget_body(self) -> None:
        if self._decoded is not None:
            self._decoded.close()
            self._decoded = None
            self.request.body = BytesIO()  # of which the parser sees that it was read
