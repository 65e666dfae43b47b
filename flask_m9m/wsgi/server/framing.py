"""Framing: where the body of a request ends (RFC 9112 §6), and what a chunked body contains.

gunicorn parses the head. This module is stricter about `Transfer-Encoding`, and decodes chunks as
they arrive, each octet once.
"""

from __future__ import annotations

import re

from gunicorn.http import RequestParser
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.errors import InvalidChunkSize, InvalidHeader
from gunicorn.http.message import Request

_MAX_LINE = 8_192
_FREE_FRAMING = 16_384  # octets
# Possessive quantifiers: a line that does not match is read once, and not from each of its zeros.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]++|\\[\t -~\x80-\xff])*+"'
_EXTENSION = (
    rb"[ \t]*+;[ \t]*+" + _TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?+"
)
_SIZE_LINE = rb"0*+([0-9A-Fa-f]{0,15}+)(?<=[0-9A-Fa-f])(?:" + _EXTENSION + rb")*+\r\n"
_FIRST_LINE = re.compile(_SIZE_LINE)
_NEXT_LINE = re.compile(rb"\r\n" + _SIZE_LINE)  # after the content of a chunk


class UnknownCoding(Exception):
    """A request's `Transfer-Encoding` is not exactly `chunked`."""


class ContentTooLarge(Exception):
    """The chunks announce more octets than a body may have."""


class StrictRequest(Request):  # type: ignore[misc]
    """gunicorn's request, whose only transfer coding is `chunked` (RFC 9112 §6.1, §6.3).

    Attributes:
        chunked: whether the body is chunked; `body` is then for the server to set.
    """

    chunked = False
    headers: list[tuple[str, str]]

    def set_body_reader(self) -> None:
        """Determine the body's length.

        Raises:
            UnknownCoding: there is another transfer coding, or more than one.
            InvalidHeader: the length is invalid, or contradicts the transfer coding.
        """
        codings = [value for name, value in self.headers if name == "TRANSFER-ENCODING"]
        if not codings:
            super().set_body_reader()
            return
        lengths = any(name == "CONTENT-LENGTH" for name, _ in self.headers)
        if lengths or self.version < (1, 1):
            raise InvalidHeader("TRANSFER-ENCODING", req=self)
        if [coding.lower() for coding in codings] != ["chunked"]:
            raise UnknownCoding
        self.chunked = True
        self.headers = [field for field in self.headers if field[0] != "TRANSFER-ENCODING"]
        self.body = Body(LengthReader(self.unreader, 0))


class StrictParser(RequestParser):  # type: ignore[misc]
    """gunicorn's parser, for `StrictRequest`."""

    mesg_class = StrictRequest


class ChunkedDecoder:
    """Decodes a chunked body as its octets arrive (RFC 9112 §7.1).

    A chunk costs time however short it is. So the framing (sizes, extensions and line ends) may
    have as many octets as the content, and 16 KiB in addition.

    Args:
        max_octets: the largest content.
        max_trailer: the largest trailer section, in octets.

    Attributes:
        octets: the size of the chunks announced so far.
        trailer: the trailer section, once the body has ended.
        rest: the octets after the body; `None` until it has ended.
    """

    def __init__(self, max_octets: int, max_trailer: int) -> None:
        self.octets = 0
        self.trailer = b""
        self.rest: bytes | None = None
        self._max_octets = max_octets
        self._max_trailer = max_trailer
        self._framing = 0
        self._pending = b""
        self._missing = 0  # octets of the current chunk
        self._line = _FIRST_LINE
        self._in_trailer = False

    def decode(self, data: bytes) -> bytes:
        """Return the content of the octets that have arrived.

        Raises:
            InvalidChunkSize: the body is malformed, or has too much framing.
            ContentTooLarge: the content is too large.
        """
        data = self._pending + data
        position, content = 0, []
        while not self._in_trailer:
            if self._missing:
                part = data[position : position + self._missing]
                content.append(part)
                position += len(part)
                self._missing -= len(part)
                if self._missing:
                    break
            if not self._has_line(data, position):
                break
            line = self._line.match(data, position)
            if line is None:
                raise InvalidChunkSize(data[position : position + 20])
            self._line = _NEXT_LINE
            self._framing += line.end() - position
            position = line.end()
            self._begin_chunk(int(line[1] or b"0", 16))
        self._pending = data[position:]
        if self._in_trailer:
            self._take_trailer()
        return b"".join(content)

    def _begin_chunk(self, size: int) -> None:
        self._missing = size
        self._in_trailer = size == 0
        self.octets += size
        if self.octets > self._max_octets:
            raise ContentTooLarge
        if self._framing > _FREE_FRAMING + self.octets:
            raise InvalidChunkSize(b"more framing than content")

    def _has_line(self, data: bytes, position: int) -> bool:
        """Tell whether the next line is complete; refuse one that cannot be valid."""
        if self._line is _NEXT_LINE:
            if not b"\r\n".startswith(data[position : position + 2]):
                raise InvalidChunkSize(data[position : position + 2])
            position += 2
        if data.find(b"\n", position) >= 0:
            return True
        if len(data) - position > _MAX_LINE:
            raise InvalidChunkSize(b"a line that is too long")
        return False

    def _take_trailer(self) -> None:
        """Find the end of the trailer section, which may be empty."""
        section = self._pending
        if section.startswith(b"\r\n"):
            self.rest = section[2:]
            return
        trailer, end, rest = section.partition(b"\r\n\r\n")
        if len(trailer) > self._max_trailer:
            raise InvalidChunkSize(b"a trailer section that is too large")
        if end:
            self.trailer, self.rest = trailer, rest
