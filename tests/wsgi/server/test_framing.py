"""How long a chunked body is waited for."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.wsgi.server.framing import ChunkedBody

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
lines = st.sampled_from(
    [b"0\r\n", b"1\r\n", b"5\r\n", b"a;x=y\r\n", b"-1\r\n", b"0x1\r\n", b"\r\n", b"\n", b" 2 \r\n"]
)
data = st.binary(max_size=12)


def chunked(chunks: list[bytes], trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return body + b"0\r\n" + trailer + b"\r\n"


def parts(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    return [octets[a:b] for a, b in pairwise(places)]


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0)))
def test_a_body_ends_with_its_last_octet_however_it_comes(
    chunks: list[bytes], cuts: list[int]
) -> None:
    body, whole = ChunkedBody(), chunked(chunks, b"X-Trailer: 1\r\n")
    ended = [body.feed(part) for part in parts(whole, cuts)]
    assert ended == [False] * (len(ended) - 1) + [True]
    assert body.octets == sum(map(len, chunks))


@given(st.lists(lines | data), st.integers(1, 20))
def test_no_body_is_waited_for_that_the_parser_has_whole(sent: list[bytes], step: int) -> None:
    whole = b"".join(sent)
    body = ChunkedBody()
    waiting = not any(body.feed(whole[at : at + step]) for at in range(0, len(whole), step))
    request = next(RequestParser(Config(), [HEAD, whole], ("127.0.0.1", 1)))
    read = False
    with suppress(Exception):  # it may be no such body at all
        request.body.read()
        read = True
    assert not (read and waiting)


@pytest.mark.parametrize("line", [b"x" * 9_000, b"1;" + b"x" * 9_000])
def test_a_line_that_does_not_end_is_not_waited_for(line: bytes) -> None:
    assert ChunkedBody().feed(line)
