"""Where a chunked body ends, for a server that waits for all of it (RFC 9112 §7.1).

This says only how long to wait. What the body is, and whether it is one, gunicorn's parser says,
which reads the same octets again: whatever looks wrong here ends the waiting.
"""

from __future__ import annotations

import re

_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}[ \t]*(;.*)?", re.DOTALL)
_LONGEST_LINE = 8_192


class ChunkedBody:
    """Follows a chunked body as its octets come.

    Attributes:
        octets: how many octets of the body the chunks so far hold or announce.
    """

    def __init__(self) -> None:
        self.octets = 0
        self._line = bytearray()
        self._skip = 0
        self._in_trailer = False

    def feed(self, data: bytes) -> bool:
        """Take in what has come, and tell whether nothing more is to be waited for."""
        at = 0
        while True:
            step = min(self._skip, len(data) - at)
            at += step
            self._skip -= step
            if at == len(data):
                return False
            end = data.find(b"\n", at)
            self._line += data[at : end + 1] if end >= 0 else data[at:]
            if end < 0:
                return len(self._line) > _LONGEST_LINE
            at = end + 1
            line = bytes(self._line)
            self._line.clear()
            if self._ends(line):
                return True

    def _ends(self, line: bytes) -> bool:
        """Read a line, and tell whether the body ends with it, or is broken."""
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
