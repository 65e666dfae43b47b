"""Decoding of chunked bodies, beside gunicorn's decoder."""

from __future__ import annotations

import time
from contextlib import suppress
from itertools import pairwise

import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser
from gunicorn.http.errors import InvalidChunkSize
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m.wsgi.server.framing import ChunkedDecoder, ContentTooLarge

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
lines = st.sampled_from(
    [
        *(b"0\r\n", b"1\r\n", b"5\r\n", b"a;x=y\r\n", b"-1\r\n", b"0x1\r\n", b"\r\n", b"\n"),
        *(
            b" 2 \r\n",
            b"2 \r\n",
            b'2 ; a = "b;\\"c" ; d\r\n',
            b"2;\r\n",
            b"2;a\rb\r\n",
            b"0000001\r\n",
        ),
        *(b"ab", b"a", b"X: y\r\n", b"GET / HTTP/1.1\r\n"),
    ]
)
data = st.binary(max_size=12)


def decoder(octets: int = 16**15) -> ChunkedDecoder:  # the largest size that a line can announce
    return ChunkedDecoder(octets, 1_000)


def chunked(chunks: list[bytes], trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return body + b"0\r\n" + trailer + b"\r\n"


def parts(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    return [octets[a:b] for a, b in pairwise(places)]


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(0)), data)
def test_a_body_is_decoded_however_it_arrives(
    chunks: list[bytes], cuts: list[int], after: bytes
) -> None:
    decoding, content = decoder(), b""
    *first, last = parts(chunked(chunks, b"X-Trailer: 1\r\n"), cuts)
    for part in first:
        content += decoding.decode(part)
        assert decoding.rest is None
    content += decoding.decode(last + after)
    assert (content, decoding.trailer) == (b"".join(chunks), b"X-Trailer: 1")
    assert decoding.rest == after


@given(st.lists(lines | data), st.integers(1, 20))
def test_nothing_is_decoded_that_the_parser_of_gunicorn_refuses(
    sent: list[bytes], step: int
) -> None:
    whole = b"".join(sent)
    decoding, content = decoder(), b""
    try:
        for at in range(0, len(whole), step):
            content += decoding.decode(whole[at : at + step])
            if decoding.rest is not None:
                content = content, decoding.rest + whole[at + step :]  # type: ignore[assignment]
                break
    except InvalidChunkSize:
        content = None  # type: ignore[assignment]
    request = next(RequestParser(Config(), [HEAD, whole], ("127.0.0.1", 1)))
    theirs: object = None
    try:
        theirs = request.body.read(), request.unreader.take_buffered()
    except Exception:  # malformed, or not at its end
        assert decoding.rest is None or decoding.trailer  # the connection checks trailer fields
    else:
        assert content == theirs


@pytest.mark.parametrize(
    "sent",
    [
        b"x" * 9_000,
        b"1;" + b"x" * 9_000,
        b"0" * 9_000,
        b"1\r\nab",
        b"1\r\na\n",
        b"1\n",
        b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"0\r\n" + b"x" * 1_001,
        b"f" * 16 + b"\r\n",
    ],
)
def test_what_cannot_become_valid_is_refused_at_once(sent: bytes) -> None:
    with pytest.raises(InvalidChunkSize):
        decoder().decode(sent)


def test_more_content_than_the_limit_is_refused_when_it_is_announced() -> None:
    decoding = decoder(5)
    assert decoding.decode(b"5\r\nabc") == b"abc"
    with pytest.raises(ContentTooLarge):
        decoding.decode(b"de\r\n1\r\n")


@pytest.mark.parametrize(
    "chunk",
    [b"1\r\nx\r\n", b"1;" + b"a" * 100 + b"\r\nx\r\n", b"0000000001\r\nx\r\n"],
    ids=["one octet", "extensions", "leading zeros"],
)
def test_framing_without_content_is_refused(chunk: bytes) -> None:
    decoding = decoder()
    decoding.decode(chunk * (16_000 // len(chunk)))
    with pytest.raises(InvalidChunkSize):
        decoding.decode(chunk * (16_000 // len(chunk)))


def test_small_chunks_with_more_content_than_framing_are_decoded() -> None:
    assert decoder().decode(b"6\r\nabcdef\r\n" * 50_000) == b"abcdef" * 50_000


def test_an_octet_at_a_time_costs_no_more_the_longer_a_line_grows() -> None:
    def cost(octets: int) -> float:
        decoding = decoder()
        begun = time.thread_time()
        for _ in range(octets):
            decoding.decode(b"0")
        return time.thread_time() - begun

    assert min(cost(8_000) for _ in range(3)) < 100 * min(cost(800) for _ in range(3))


@pytest.mark.parametrize(
    "line",
    [b"0" * 8_000, b"0" * 8_000 + b"g", b"1" + b";a" * 4_000 + b";", b'1;a="' + b"y" * 8_000],
    ids=["zeros", "zeros and a letter", "names", "an open quote"],
)
def test_a_line_that_is_malformed_costs_about_what_a_valid_one_costs(line: bytes) -> None:
    def cost(line: bytes) -> float:
        costs = []
        for _ in range(20):
            began = time.thread_time()
            with suppress(InvalidChunkSize):
                ChunkedDecoder(10_000, 1_000).decode(line)
            costs.append(time.thread_time() - began)
        return min(costs)

    valid = cost(b"1;" + b"a;" * 3_999 + b"a\r\nx\r\n0\r\n\r\n")
    assert cost(line + b"\n") < 3 * valid
