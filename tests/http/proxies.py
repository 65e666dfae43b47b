"""Real proxies on loopback: nginx, and one in a few lines for where nginx is not installed."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

_CONFIGURATION = """
daemon off;
{user}
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port}{ssl};
        {certificate}
        location / {{
            proxy_pass http://{upstream};
            {bind}
            proxy_set_header Host $http_host;
            proxy_set_header X-Request-ID $request_id;
            {forwarding}
        }}
    }}
}}
"""
_X_FORWARDED = """
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
"""
_FORWARDED = """
            proxy_set_header Forwarded "$http_forwarded, for=$remote_addr;proto=$scheme;host=$host";
"""

StartProxy = Callable[..., Any]


@contextmanager
def nginx(
    directory: Path,
    upstream: str,
    *,
    tls: bool = False,
    header: str = "x-forwarded",
    bind: str | None = None,
) -> Iterator[int]:
    """Run nginx in front of `127.0.0.1:port` or `unix:path`; yield its port."""
    assert NGINX is not None
    port = free_port()
    directory.mkdir()
    certificate = ""
    if tls:
        cert, key = make_certificate(directory)
        certificate = f"ssl_certificate {cert}; ssl_certificate_key {key};"
    configuration = directory / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            directory=directory,
            user="user root;" if os.geteuid() == 0 else "",  # else it may not open sockets here
            port=port,
            ssl=" ssl" if tls else "",
            certificate=certificate,
            upstream=upstream,
            bind=f"proxy_bind {bind};" if bind else "",
            forwarding=_FORWARDED if header == "forwarded" else _X_FORWARDED,
        )
    )
    command = [NGINX, "-p", str(directory), "-c", str(configuration)]
    process = subprocess.Popen([*command, "-e", str(directory / "error.log")])
    try:
        _await(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def python(
    directory: Path,
    upstream: str,
    *,
    tls: bool = False,
    header: str = "x-forwarded",
    bind: str | None = None,
) -> Iterator[int]:
    """Run the same in a thread."""
    scheme = "https" if tls else "http"

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the server's name
            peer, host = self.client_address[0], self.headers["Host"]
            ours = {"x-forwarded-proto": scheme, "x-forwarded-host": host.partition(":")[0]}
            ours["x-forwarded-for"] = ", ".join(
                [*self.headers.get_all("X-Forwarded-For", ()), peer]
            )
            if header == "forwarded":
                hop = f"for={peer};proto={scheme};host={host.partition(':')[0]}"
                ours = {"forwarded": ", ".join([*self.headers.get_all("Forwarded", ()), hop])}
            ours["x-request-id"] = "f" * 32
            connection = _connect(upstream, bind)
            connection.putrequest("GET", self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in [*self.headers.items(), *ours.items()]:
                if name.lower() not in ours or name in ours:
                    connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("server", "date", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            connection.close()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    if tls:
        directory.mkdir()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*make_certificate(directory))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def starter(kind: str, directory: Path, stack: ExitStack) -> StartProxy:
    """Return a function that starts proxies, which run as long as the stack."""
    start = nginx if kind == "nginx" else python
    numbers = iter(range(100))

    def begin(upstream: int | Path, **options: Any) -> int:
        where = f"unix:{upstream}" if isinstance(upstream, Path) else f"127.0.0.1:{upstream}"
        return stack.enter_context(start(directory / f"proxy-{next(numbers)}", where, **options))

    return begin


def make_certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _connect(upstream: str, bind: str | None) -> HTTPConnection:
    if upstream.startswith("unix:"):
        connection = HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(upstream.removeprefix("unix:"))
        return connection
    source = None if bind is None else (bind, 0)
    return HTTPConnection(upstream, timeout=10, source_address=source)


def _await(port: int) -> None:
    until = time.monotonic() + 10.0
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.02)
