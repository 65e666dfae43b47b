"""Buffered bodies: what the worker has received of bodies, and how much all of them hold."""

from __future__ import annotations

import tempfile
import time
from io import BytesIO
from socket import socket
from typing import IO, NoReturn

from gunicorn.http.unreader import SocketUnreader
from werkzeug.exceptions import HTTPException

_CHUNK = 65_536  # octets that are received at once
_IN_MEMORY = 65_536  # octets of a body kept in memory; a longer body goes into a file


class BufferSpace:
    """The octets that the bodies of a worker's requests hold, in memory and in files.

    Only the poller's thread uses it.

    Args:
        limit: the number of octets they may hold together.

    Attributes:
        held: the number that they hold.
    """

    def __init__(self, limit: int) -> None:
        self.held = 0
        self.limit = limit


class BufferedBody:
    """The content of a body as it arrives.

    Args:
        space: counts the content.

    Attributes:
        file: the content; the app reads it from its beginning.
        held: its size in octets.
    """

    def __init__(self, space: BufferSpace) -> None:
        self.file: IO[bytes] = BytesIO()
        self.held = 0
        self._space = space

    def write(self, data: bytes) -> None:
        """Append content.

        Raises:
            OSError: the file cannot take it: the disk is full, for example.
        """
        if not self.held:
            self.file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        self.held += len(data)
        self._space.held += len(data)
        self.file.write(data)

    def clear(self) -> None:
        """Delete the content."""
        self._space.held -= self.held
        self.held = 0
        self.file.close()
        self.file = BytesIO()


class Unreceived:
    """A body that the server does not receive: reading it raises an error."""

    def __init__(self, error: type[HTTPException]) -> None:
        self._error = error

    def read(self, size: int = -1) -> NoReturn:
        raise self._error

    readline = readlines = __next__ = read

    def __iter__(self) -> Unreceived:
        return self


class Received(SocketUnreader):  # type: ignore[misc]
    """The octets received so far, as the source for gunicorn's parser.

    After them the parser sees the end of the connection, so that no thread waits for a client. The
    exception is a body larger than `max_body_size`, which an app reads only if its own limit is
    larger. The rest of that body is read from the socket, until `deadline`.

    Attributes:
        unlimited: whether to read the rest of the body from the socket.
        invitation: what to send before that, once.
        deadline: when that ends, in seconds of the monotonic clock.
    """

    def __init__(self, sock: socket) -> None:
        super().__init__(sock)
        self.unlimited = False
        self.invitation = b""
        self.deadline = 0.0

    def chunk(self, size_hint: int | None = None) -> bytes:
        if not self.unlimited:
            return b""
        if self.invitation:
            self.sock.sendall(self.invitation)
            self.invitation = b""
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
