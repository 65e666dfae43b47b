"""Framing: finds the end of a chunked body as its octets arrive (RFC 9112 §7.1).

The server waits for the whole body, and this code decides only how long. gunicorn's parser reads
the same octets again, validates and decodes them. So malformed input simply ends the wait here.
"""

from __future__ import annotations

import re

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}[ \t]*(;.*)?", re.DOTALL)
_MAX_LINE = 8_192


class ChunkedBody:
    """Tracks a chunked body as its octets arrive.

    Attributes:
        octets: the total size of the chunks announced so far.
    """

    def __init__(self) -> None:
        self.octets = 0
        self._line = bytearray()
        self._skip = 0
        self._in_trailer = False

    def feed(self, data: bytes) -> bool:
        """Process received octets; tell whether the body has ended or is malformed."""
        position = 0
        while True:
            step = min(self._skip, len(data) - position)
            position += step
            self._skip -= step
            if position == len(data):
                return False
            end = data.find(b"\n", position)
            self._line += data[position : end + 1] if end >= 0 else data[position:]
            if end < 0:
                return len(self._line) > _MAX_LINE
            position = end + 1
            line = bytes(self._line)
            self._line.clear()
            if self._ends(line):
                return True

    def _ends(self, line: bytes) -> bool:
        """Process a line; tell whether the body ends with it or is malformed."""
        if not line.endswith(b"\r\n"):
            return True
        if self._in_trailer:
            return line == b"\r\n"
        if not _SIZE.fullmatch(line[:-2]):
            return True
        size = int(line.partition(b";")[0].strip(), 16)
        self.octets += size
        self._in_trailer = size == 0
        self._skip = size + 2 if size else 0
        return False
