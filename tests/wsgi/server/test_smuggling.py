"""Requests that two servers could read differently, sent to an app as it is served."""

from __future__ import annotations

import re

import pytest

from .conftest import Server, read_all

HOST = b"Host: localhost\r\n"
HIDDEN = b"GET /scheme HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def served(shared_server: Server) -> Server:
    timeouts = {"header": "2s", "keep_alive": "2s"}
    shared_server.configure(server={"timeouts": timeouts, "limits": {"max_body_size": 100_000}})
    shared_server.start()
    return shared_server


def exchange(served: Server, sent: bytes) -> list[int]:
    """Return the statuses of all answers until the server closes."""
    with served.dial() as connection:
        connection.sendall(sent)
        return [int(one) for one in re.findall(rb"HTTP/1\.[01] (\d{3}) ", read_all(connection))]


def post(*fields: bytes, body: bytes = b"") -> bytes:
    head = b"".join(field + b"\r\n" for field in fields)
    return b"POST / HTTP/1.1\r\n" + HOST + head + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked"
AMBIGUOUS = {
    "CL and TE": post(b"Content-Length: 6", CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "TE and CL": post(CHUNKED, b"Content-Length: 4", body=b"5c\r\n" + HIDDEN + b"0\r\n\r\n"),
    "two CL": post(b"Content-Length: 0", b"Content-Length: 44", body=HIDDEN),
    "two CL in one": post(b"Content-Length: 0, 44", body=HIDDEN),
    "two equal CL": post(b"Content-Length: 44", b"Content-Length: 44", body=HIDDEN),
    "CL +": post(b"Content-Length: +0", body=HIDDEN),
    "CL -": post(b"Content-Length: -1", body=HIDDEN),
    "CL hexadecimal": post(b"Content-Length: 0x2c", body=HIDDEN),
    "CL superscript": post("Content-Length: ²".encode("latin-1"), body=HIDDEN),
    "CL empty": post(b"Content-Length:", body=HIDDEN),
    "two TE": post(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + HIDDEN),
    "TE identity": post(b"Transfer-Encoding: identity", body=HIDDEN),
    "TE gzip": post(b"Transfer-Encoding: gzip", body=HIDDEN),
    "TE chunked, gzip": post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n" + HIDDEN),
    "chunk size of no digits": post(CHUNKED, body=b"z\r\n\r\n" + HIDDEN),
    "chunk size 0x": post(CHUNKED, body=b"0x1\r\na\r\n0\r\n\r\n" + HIDDEN),
    "chunk size -1": post(CHUNKED, body=b"-1\r\n\r\n" + HIDDEN),
    "chunk too long": post(CHUNKED, body=b"1\r\nabc\r\n0\r\n\r\n" + HIDDEN),
    "chunk line with a bare LF": post(CHUNKED, body=b"1\na\n0\n\n" + HIDDEN),
    "chunk extension with a bare CR": post(CHUNKED, body=b"1;\ra\r\nx\r\n0\r\n\r\n" + HIDDEN),
    "TE in HTTP/1.0": post(CHUNKED, body=b"0\r\n\r\n" + HIDDEN).replace(b"1.1", b"1.0", 1),
    "obs-fold": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: 1\r\n\tContent-Length: 44\r\n\r\n" + HIDDEN,
    "folded TE": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n" + HIDDEN),
    "NUL in a value": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: a\0b\r\n\r\n" + HIDDEN,
    "NUL in a name": b"GET / HTTP/1.1\r\n" + HOST + b"X-\0A: a\r\n\r\n" + HIDDEN,
    "bare CR": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: a\rContent-Length: 44\r\n\r\n" + HIDDEN,
    "space before the colon": post(b"Content-Length : 44", body=HIDDEN),
    "TE with a space before the colon": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "a field without a colon": b"GET / HTTP/1.1\r\n" + HOST + b"X-A\r\n\r\n" + HIDDEN,
    "a line that begins with a space": b"GET / HTTP/1.1\r\n X: y\r\n" + HOST + b"\r\n" + HIDDEN,
    "no host": b"GET / HTTP/1.1\r\n\r\n" + HIDDEN,
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + b"Host: other\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /\r\n\r\n" + HIDDEN,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.10": b"GET / HTTP/1.10\r\n" + HOST + b"\r\n" + HIDDEN,
    "a space in the target": b"GET / x HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "a control in the target": b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "no method": b" / HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN,
    "an empty head": b"\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_an_ambiguous_request_is_refused_and_nothing_after_it_is_read(
    served: Server, sent: bytes
) -> None:
    statuses = exchange(served, sent)
    assert len(statuses) <= 1
    assert all(status in (400, 501, 505) for status in statuses), statuses


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "TRACK", "DEBUG", "BREW", "PROPFIND"])
def test_a_method_that_no_route_has_is_refused(served: Server, method: str) -> None:
    target = "localhost:443" if method == "CONNECT" else "/"
    sent = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    (status,) = exchange(served, sent.encode())
    assert status in (400, 404, 405, 501) if method == "CONNECT" else status in (405, 501)


def test_a_trace_brings_nothing_of_the_request_back(served: Server) -> None:
    with served.dial() as connection:
        connection.sendall(b"TRACE / HTTP/1.1\r\nHost: localhost\r\nCookie: s3cret\r\n\r\n")
        connection.shutdown(1)
        assert b"s3cret" not in read_all(connection)


def test_nothing_follows_a_connect(served: Server) -> None:
    sent = b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n" + HIDDEN
    assert len(exchange(served, sent)) == 1


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"".join(b"X-%d: 1\r\n" % number for number in range(101)), 431),
        (b"X: " + b"x" * 20_000 + b"\r\n", 431),
        (b"".join(b"X-%d: %s\r\n" % (number, b"x" * 400) for number in range(50)), 431),
    ],
    ids=["fields", "one field", "the head"],
)
def test_a_head_beyond_its_limits_is_refused(served: Server, fields: bytes, status: int) -> None:
    assert exchange(served, b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n") == [status]


def test_a_target_beyond_its_limit_is_refused(served: Server) -> None:
    (status,) = exchange(served, b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert status in (400, 414)


def test_requests_one_after_the_other_are_each_answered(served: Server) -> None:
    one = post(b"Content-Length: 3", body=b"abc")
    chunked = post(CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n")
    assert exchange(served, (one + chunked + HIDDEN) * 3) == [200] * 9


def test_a_body_that_no_view_reads_is_no_request(served: Server) -> None:
    length = b"Content-Length: %d\r\n\r\n" % len(HIDDEN)
    unread = b"POST /unread HTTP/1.1\r\n" + HOST + length + HIDDEN
    assert exchange(served, unread) == [200]
    assert exchange(served, unread + HIDDEN) == [200, 200]


def test_a_body_of_more_than_the_limit_is_answered_by_the_app(served: Server) -> None:
    with served.dial() as connection:
        connection.sendall(post(b"Content-Length: 100001"))
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"CONTENT_TOO_LARGE" in answer
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer


def test_chunks_of_more_than_the_limit_are_answered_by_the_app(served: Server) -> None:
    with served.dial() as connection:
        connection.sendall(post(CHUNKED, body=b"186a1\r\n" + b"x" * 100_001 + b"\r\n0\r\n\r\n"))
        assert b"CONTENT_TOO_LARGE" in read_all(connection)


def test_nobody_is_believed_about_the_scheme(served: Server) -> None:
    for field in ("X-Forwarded-Proto", "X-Forwarded-Protocol"):
        assert b'"http"' in served.get("/scheme", {field: "https"})[1]
    assert b'"http"' in served.get("/scheme", {"X-Forwarded-Ssl": "on"})[1]
