"""Trusted proxies over real HTTP: what the app sees of a client that is one or two hops away."""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, redirect, request
from werkzeug.serving import make_server

from flask_m9m import M9M, get_client_address, get_request_id
from flask_m9m.testing import make_settings

from .proxies import NGINX, StartProxy, starter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")

NEAR, FAR, CLIENT, SPOOFED = "127.0.0.1", "127.0.0.2", "127.0.0.9", "203.0.113.66"
HSTS = "Strict-Transport-Security"
OURS = re.compile(r"[0-9a-f]{32}")
Serve = Callable[..., Any]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["nginx", "python"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path, stack: ExitStack) -> StartProxy:
    """Start a proxy of each kind in turn, in front of a port or a socket; return its port."""
    if request.param == "nginx" and NGINX is None:
        pytest.skip("nginx is not installed")
    return starter(request.param, tmp_path, stack)


@pytest.fixture
def serve(tmp_path: Path, stack: ExitStack) -> Serve:
    """Return a function that serves an app; it returns the port, or the socket's path."""

    def start(*, unix: bool = False, **server: Any) -> int | Path:
        app = Flask("app")
        M9M(app, settings=make_settings({"server": server}))

        @app.get("/seen")
        def seen() -> dict[str, Any]:
            return {"address": get_client_address(), "id": get_request_id()}

        @app.get("/spoofed")
        def spoofed() -> Any:
            return redirect(request.url)

        path = tmp_path / "socket"
        host, port = (f"unix://{path}", 0) if unix else ("127.0.0.1", 0)
        backend = make_server(host, port, app, threaded=True)
        thread = threading.Thread(target=backend.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()

        def stop() -> None:
            backend.shutdown()
            thread.join()
            backend.server_close()

        stack.callback(stop)
        return path if unix else backend.server_port

    return start


def ask(port: int, path: str = "/seen", *, tls: bool = False, **headers: str) -> tuple[Any, Any]:
    """Ask from the client's own address; return the answer and its body."""
    connection: HTTPConnection = HTTPConnection(NEAR, port, timeout=10, source_address=(CLIENT, 0))
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection(
            NEAR, port, timeout=10, source_address=(CLIENT, 0), context=context
        )
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", path, headers={"Host": "api.example.com", **fields})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, json.loads(body) if answer.status == 200 else body


LIES = {
    "X_Forwarded_For": f"{SPOOFED}, {SPOOFED}",
    "X_Forwarded_Proto": "https",
    "X_Forwarded_Host": "evil.example",
    "Forwarded": f"for={SPOOFED};proto=https;host=evil.example",
    "X_Request_ID": "mine",
}


@pytest.mark.parametrize("header", ["x-forwarded", "forwarded"])
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_the_client_behind_one_trusted_proxy(
    proxy: StartProxy, serve: Serve, header: str, tls: bool
) -> None:
    backend = serve(trusted_proxies=[NEAR], proxy_headers=header)
    port = proxy(backend, header=header, tls=tls)
    for headers in ({}, LIES):
        answer, seen = ask(port, tls=tls, **headers)
        assert seen["address"] == CLIENT
        assert (HSTS in answer.headers) is tls
        assert OURS.fullmatch(seen["id"])  # the proxy's, whatever the client sent
        assert answer.headers.get_all("X-Request-ID") == [seen["id"]]


@pytest.mark.parametrize("header", ["x-forwarded", "forwarded"])
def test_the_client_behind_two_trusted_proxies(
    proxy: StartProxy, serve: Serve, header: str
) -> None:
    backend = serve(trusted_proxies=[NEAR, FAR], proxy_headers=header)
    inner = proxy(backend, header=header)
    outer = proxy(inner, header=header, bind=FAR)
    for headers in ({}, LIES):
        assert ask(outer, **headers)[1]["address"] == CLIENT
    one = serve(trusted_proxies=[NEAR], proxy_headers=header)
    outer = proxy(proxy(one, header=header), header=header, bind=FAR)
    assert ask(outer, **LIES)[1]["address"] == FAR


def test_without_trusted_proxies_nothing_that_they_say_counts(
    proxy: StartProxy, serve: Serve
) -> None:
    for trusted in ([], ["192.0.2.1"]):
        answer, seen = ask(proxy(serve(trusted_proxies=trusted), tls=True), tls=True, **LIES)
        assert seen["address"] == NEAR
        assert HSTS not in answer.headers
        assert seen["id"] not in ("mine", "f" * 32)


def test_a_client_that_is_no_proxy_is_not_believed(serve: Serve) -> None:
    answer, seen = ask(serve(trusted_proxies=[NEAR]), **LIES)
    assert seen["address"] == CLIENT
    assert HSTS not in answer.headers
    assert OURS.fullmatch(seen["id"])


@pytest.mark.parametrize(
    ("written", "read"), [("x-forwarded", "forwarded"), ("forwarded", "x-forwarded")]
)
def test_the_other_family_of_fields_is_ignored(
    proxy: StartProxy, serve: Serve, written: str, read: str
) -> None:
    port = proxy(serve(trusted_proxies=[NEAR], proxy_headers=read), header=written, tls=True)
    answer, seen = ask(port, tls=True)
    assert seen["address"] == NEAR
    assert HSTS not in answer.headers


@pytest.mark.parametrize("header", ["x-forwarded", "forwarded"])
def test_over_a_unix_socket(proxy: StartProxy, serve: Serve, header: str) -> None:
    backend = serve(unix=True, trusted_proxies=["unix"], proxy_headers=header)
    answer, seen = ask(proxy(backend, header=header, tls=True), tls=True, **LIES)
    assert seen["address"] == CLIENT
    assert HSTS in answer.headers


def test_over_a_unix_socket_that_is_not_trusted(proxy: StartProxy, serve: Serve) -> None:
    backend = serve(unix=True, trusted_proxies=[NEAR])
    answer, seen = ask(proxy(backend, tls=True), tls=True, **LIES)
    assert seen["address"] is None
    assert HSTS not in answer.headers


@pytest.mark.parametrize("header", ["x-forwarded", "forwarded"])
def test_the_redirect_to_https_names_the_host_that_was_asked_for(
    proxy: StartProxy, serve: Serve, header: str
) -> None:
    options = {"https": "redirect", "trusted_proxies": [NEAR], "proxy_headers": header}
    port = proxy(serve(trust_forwarded_host=True, **options), header=header)
    answer, _ = ask(port, "/seen?a=b", **LIES)
    assert (answer.status, answer.headers["Location"]) == (308, "https://api.example.com/seen?a=b")


def test_allowed_networks_go_by_the_client(proxy: StartProxy, serve: Serve) -> None:
    only = {"trusted_proxies": [NEAR], "allowed_networks": [f"{CLIENT}/32"]}
    assert ask(proxy(serve(**only)))[0].status == 200
    only["allowed_networks"] = [f"{SPOOFED}/32", f"{NEAR}/32"]
    assert ask(proxy(serve(**only)), **LIES)[0].status == 403
