"""Harness of chunked bodies, compared with a decoder that is written down a second time.

Cases are grouped by the octets that are read, the chunks, extensions and escapes in them, and the
parts in which they arrive.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from gunicorn.http.errors import InvalidChunkSize

from flask_m9m.wsgi.server.framing import ChunkedDecoder, ContentTooLarge

from .harness import LONGEST, Harness, Wrong
from .mutation import Mutator

MOST = 12_000
TRAILER = 1_000
_OCTETS = "".join(map(chr, range(256)))
_NAME = r"[\w!#$%&'*+.^`|~-]+"
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSION = rf"[ \t]*;[ \t]*{_NAME}(?:[ \t]*=[ \t]*(?:{_NAME}|{_QUOTED}))?"
_SIZE = re.compile(rf"([0-9A-Fa-f]+)(?:{_EXTENSION})*\r\n", re.ASCII | re.DOTALL)


class Arriving(NamedTuple):
    """A body, and the lengths of the parts in which it arrives, over and over."""

    body: bytes
    parts: tuple[int, ...]


class Decoded(NamedTuple):
    """What became of a body: its content, and what comes after it, if it has ended."""

    content: bytes
    rest: bytes | None


class Chunked(Harness):
    """Chunked bodies: valid and damaged ones, in pieces of any size."""

    name = "chunked"
    outcomes = ("ended", "waits", "refused")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._read = read(b"")  # of the last case
        text = "The quick brown fox"
        bodies = [
            "0\r\n\r\n",
            f"13\r\n{text}\r\n0\r\n\r\n",
            f"5\r\n{text[:5]}\r\ne;name=value\r\n{text[5:]}\r\n0\r\nTrailer: x\r\n\r\n",
            'A\r\n0123456789\r\n00a\r\n0123456789\r\n0;x="y\\""\r\n\r\nGET / HTTP/1.1\r\n\r\n',
            "1\r\nx\r\n" * 40 + "0\r\n\r\n",
            "400\r\n" + "y" * 1_024 + "\r\n0\r\n\r\n",
        ]
        words = ("\r\n", "\n", "\r", "0\r\n\r\n", "1\r\nx\r\n", "ffffffff\r\n", ";a=b", "0x", "\0")
        self._body = Mutator(bodies, (*words, "1\r\nx\r\n", ";"), alphabet=_OCTETS, long=0.1)

    def make(self, random: Random) -> Arriving:
        body = self._body.text(random).encode("latin-1", "replace")
        if random.random() < 0.5:
            return Arriving(body, (LONGEST,))
        return Arriving(body, random.choice(((1,), (2, 3), (7, 100), (1_000, 1))))

    def run(self, case: Arriving) -> Any:
        decoder, content, at, number = ChunkedDecoder(MOST, TRAILER), [], 0, 0
        try:
            while decoder.rest is None and at < len(case.body):
                part = case.body[at : at + case.parts[number % len(case.parts)]]
                at, number = at + len(part), number + 1
                content.append(decoder.decode(part))
        except (InvalidChunkSize, ContentTooLarge):
            return None
        rest = None if decoder.rest is None else decoder.rest + case.body[at:]
        return Decoded(b"".join(content), rest)

    def group(self, case: Arriving, result: Any) -> Hashable:
        octets = case.body[: self._read.octets]
        elements = self._read.chunks + octets.count(b";") + octets.count(b"\\")
        return case.parts, elements.bit_length(), len(octets).bit_length()

    def check(self, case: Arriving, result: Decoded | None) -> str:
        self._read = read(case.body)
        expected = self._read.outcome
        if result is None:
            if expected is not None and len(case.body) <= TRAILER:  # no length is too long
                raise Wrong(f"refused, and is {expected}")
            return "refused"
        if expected is None or (result.rest is not None and result != expected):
            raise Wrong(f"read as {result}, and is {expected}")
        if result.rest is None and not expected.content.startswith(result.content):
            raise Wrong(f"read as {result}, and is {expected}")
        return "waits" if result.rest is None else "ended"


class Read(NamedTuple):
    """How far a body is read.

    Attributes:
        octets: after how many nothing more has to be read: it has ended, or is malformed.
        chunks: how many were read.
        outcome: what came of it; `None` if the body is malformed.
    """

    octets: int
    chunks: int
    outcome: Decoded | None


def read(body: bytes) -> Read:
    """Decode a body by RFC 9112 §7.1."""
    text, content, at, chunks = body.decode("latin-1"), "", 0, 0
    while True:
        chunks += 1
        end = text.find("\n", at)
        if end < 0:
            return Read(len(body), chunks, Decoded(content.encode("latin-1"), None))
        line, at = _SIZE.fullmatch(text[at : end + 1]), end + 1
        if line is None or len(line[1].lstrip("0")) > 15 or len(content) + int(line[1], 16) > MOST:
            return Read(at, chunks, None)
        size = int(line[1], 16)
        if size == 0:
            break
        content += text[at : at + size]
        at += size
        if not "\r\n".startswith(text[at : at + 2]):
            return Read(at, chunks, None)
        if at + 2 > len(text):
            return Read(len(body), chunks, Decoded(content.encode("latin-1"), None))
        at += 2
    octets = content.encode("latin-1")
    if text[at : at + 2] == "\r\n":
        return Read(at + 2, chunks, Decoded(octets, body[at + 2 :]))
    end = text.find("\r\n\r\n", at)
    if end < 0:
        return Read(len(body), chunks, Decoded(octets, None))
    return Read(end + 4, chunks, Decoded(octets, body[end + 4 :]))


HARNESSES = (Chunked,)
