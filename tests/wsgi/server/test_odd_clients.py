"""Framing that other servers have read wrongly, and what clients do that is unusual but valid."""

from __future__ import annotations

import re
import socket
import time

import pytest

from .conftest import Server, read_all

FIELDS = b"Host: localhost\r\n"
POST = b"POST / HTTP/1.1\r\n" + FIELDS
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /scheme HTTP/1.1\r\n" + FIELDS + b"Connection: close\r\n\r\n"


@pytest.fixture(scope="module")
def served(shared_server: Server) -> Server:
    timeouts = {"header": "2s", "request": "4s", "keep_alive": "2s"}
    shared_server.configure(server={"timeouts": timeouts, "limits": {"max_body_size": 100_000}})
    shared_server.start()
    return shared_server


def exchange(served: Server, *parts: bytes, half_close: bool = False) -> list[int]:
    """Send parts with pauses between them; return the statuses until the server closes."""
    with served.dial() as client:
        for number, part in enumerate(parts):
            if number:
                time.sleep(0.2)
            client.sendall(part)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3}) ", read_all(client))]


def test_trailer_fields_that_arrive_later_are_checked(served: Server) -> None:
    assert exchange(served, CHUNKED + b"0\r\n", b"XX1\r\nX\r\n\r\n" + NEXT) == [400]
    assert exchange(served, CHUNKED + b"0\r\n", b"X: 1\r\n\r\n" + NEXT) == [200, 200]


@pytest.mark.parametrize("cut", range(1, 20))
def test_the_request_after_a_trailer_is_answered_wherever_packets_end(
    served: Server, cut: int
) -> None:
    sent = b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n" + NEXT
    assert exchange(served, CHUNKED + sent[:cut], sent[cut:]) == [200, 200]


@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Host: x", b"Transfer-Encoding: chunked"])
def test_a_trailer_cannot_change_the_framing(served: Server, field: bytes) -> None:
    assert exchange(served, CHUNKED + b"0\r\n" + field + b"\r\n\r\n" + NEXT) == [400]


def test_a_body_without_the_end_of_its_trailer_section_is_no_request(served: Server) -> None:
    assert exchange(served, CHUNKED + b"1\r\na\r\n0\r\n", half_close=True) == []


@pytest.mark.parametrize(
    "body",
    [
        b"2;\n\r\nab\r\n0\r\n\r\n",
        b"2;a\nx\r\nab\r\n0\r\n\r\n",
        b"1these-octets\r\nZ\r\n0\r\n\r\n",
        b"2\r\nabc\r\n0\r\n\r\n",
        b"2\r\nabXX0\r\n\r\n",
        b"0x2\r\nab\r\n0\r\n\r\n",
        b"+2\r\nab\r\n0\r\n\r\n",
        b"2_0\r\nab\r\n0\r\n\r\n",
        b"10000000000000002\r\nab\r\n0\r\n\r\n",
        b"\r\n2\r\nab\r\n0\r\n\r\n",
        b"0\r\n\n",
    ],
)
def test_nothing_follows_a_malformed_chunk(served: Server, body: bytes) -> None:
    assert exchange(served, CHUNKED + body + NEXT) == [400]


@pytest.mark.parametrize(
    "coding",
    [
        *(b"gzip, chunked", b"chunked, chunked", b"chunked, identity", b"identity", b"xchunked"),
        *(b"chunked;q=1", b"", b"chunked,", b",chunked", b"gzip\r\nTransfer-Encoding: chunked"),
    ],
)
def test_a_transfer_coding_other_than_chunked_is_not_implemented(
    served: Server, coding: bytes
) -> None:
    head = POST + b"Transfer-Encoding: " + coding + b"\r\n\r\n"
    assert exchange(served, head + b"0\r\n\r\n" + NEXT) == [501]


def test_the_word_chunked_has_no_case(served: Server) -> None:
    head = POST + b"transfer-encoding: \tChunked \r\n\r\n"
    assert exchange(served, head + b"1\r\na\r\n0\r\n\r\n" + NEXT) == [200, 200]


@pytest.mark.parametrize("coding", [b"chunked", b"gzip", b"identity"])
def test_a_length_beside_a_transfer_coding_is_malformed(served: Server, coding: bytes) -> None:
    head = POST + b"Content-Length: 5\r\nTransfer-Encoding: " + coding + b"\r\n\r\n"
    assert exchange(served, head + b"0\r\n\r\n" + NEXT) == [400]


def test_a_body_that_is_refused_is_not_invited(served: Server) -> None:
    expect = b"Expect: 100-continue\r\n"
    assert exchange(served, POST + expect + b"Content-Length: 100001\r\n\r\n") == [413]
    huge = b"9" * 5_000
    assert exchange(served, POST + expect + b"Content-Length: " + huge + b"\r\n\r\n") == [400]
    lengthy = POST + expect + b"Content-Length: 18446744073709551617\r\n\r\n"
    assert exchange(served, lengthy) == [413]


def test_an_invitation_comes_once_and_the_connection_stays(served: Server) -> None:
    head = b"POST /unread HTTP/1.1\r\n" + FIELDS + b"Expect: 100-continue\r\n"
    for framing, body in (
        (b"Content-Length: 3\r\n\r\n", b"abc"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    ):
        assert exchange(served, head + framing, body + NEXT) == [100, 200, 200]
        assert exchange(served, head + framing + body + NEXT) == [200, 200]
    old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    assert exchange(served, old, b"abc") == [200]


def test_another_expectation_fails(served: Server) -> None:
    assert exchange(served, POST + b"Expect: tea\r\nContent-Length: 3\r\n\r\nabc") == [417]


def test_an_empty_line_before_a_request_is_ignored(served: Server) -> None:
    first = POST + b"Content-Length: 3\r\n\r\nabc\r\n"
    assert exchange(served, first + NEXT) == [200, 200]
    assert exchange(served, first, NEXT) == [200, 200]


def test_a_client_that_closes_its_side_is_answered(served: Server) -> None:
    assert exchange(served, POST + b"Content-Length: 3\r\n\r\nabc", half_close=True) == [200]
    assert exchange(served, NEXT, half_close=True) == [200]


def test_requests_in_one_packet_are_answered_in_order(served: Server) -> None:
    one = POST + b"Content-Length: 3\r\n\r\nabc"
    chunked = CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n\r\n"
    assert exchange(served, (one + chunked) * 50 + NEXT) == [200] * 101


def test_a_request_may_come_an_octet_at_a_time(served: Server) -> None:
    sent = CHUNKED + b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n" + NEXT
    with served.dial() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in sent:
            client.sendall(bytes([octet]))
        assert read_all(client).count(b"HTTP/1.1 200 ") == 2
