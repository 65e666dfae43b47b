"""How `flask m9m serve` and gunicorn's configuration start, and why they do not."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from .certificates import Pair, make_certificate
from .conftest import Server, read_all

GUNICORN = ("gunicorn", "-c", "python:flask_m9m.serve", "app:app")
BOTH = pytest.mark.parametrize("command", [(), GUNICORN], ids=["serve", "gunicorn"])
FACTORY = """\
from flask import Flask
from flask_m9m import M9M

def make(name="made"):
    app = Flask(name)
    M9M(app)
    app.add_url_rule("/scheme", "scheme", lambda: name)
    return app
"""


def wait_for_workers(server: Server, count: int) -> None:
    """Wait until so many have begun, and see that no more do."""
    until = time.monotonic() + 10
    while (begun := server.said().count("Booting worker")) < count:
        assert time.monotonic() < until, server.said()
        time.sleep(0.05)
    assert begun == count


@BOTH
def test_it_listens_where_the_settings_say(server: Server, command: tuple[str, ...]) -> None:
    server.configure(server={"workers": 3, "threads": 2})
    server.start(*command)
    assert server.get("/scheme")[0] == 200
    wait_for_workers(server, 3)


def test_options_override_the_settings(server: Server) -> None:
    server.configure(server={"port": 1, "workers": 3})
    server.start("flask", "m9m", "serve", "--port", str(server.port), "--workers", "1")
    wait_for_workers(server, 1)


@pytest.mark.parametrize("name", ["app:make()", "app:make('other')"])
def test_a_factory_is_served(server: Server, name: str) -> None:
    server.configure()
    (server.directory / "app.py").write_text(FACTORY)
    server.start("flask", "--app", name, "m9m", "serve")
    assert server.get("/scheme")[1] == (b"other" if "other" in name else b"made")


def test_settings_that_the_app_gives_in_code_are_served(server: Server) -> None:
    server.configure(server={"port": 1})
    (server.directory / "app.py").write_text(
        "from flask import Flask\nfrom flask_m9m import M9M\napp = Flask(__name__)\n"
        f"M9M(app, settings={{'server': {{'port': {server.port}, 'workers': 1}}}})\n"
        "app.add_url_rule('/scheme', 'scheme', lambda: 'in code')\n"
    )
    server.start()
    assert server.get("/scheme") == (200, b"in code")
    wait_for_workers(server, 1)


@BOTH
def test_the_audit_trail_is_written_where_the_server_writes(
    server: Server, command: tuple[str, ...]
) -> None:
    server.configure(security={"jwt": {"secret": "s" * 16 + "ecret-of-a-test-" * 2}})
    (server.directory / "app.py").write_text(
        "from flask import Flask\nfrom flask_m9m import M9M, require_auth\n"
        "app = Flask(__name__)\nM9M(app)\n"
        "app.add_url_rule('/scheme', 'scheme', require_auth(lambda: 'x'))\n"
    )
    server.start(*command)
    (line,) = {one for one in server.said().splitlines() if '"event"' in one}
    event = json.loads(line)
    assert (event["event"], event["outcome"]) == ("access_denied", "AUTH_REQUIRED")
    assert (event["route"], event["address"]) == ("scheme", "127.0.0.1")


def test_debug_mode_is_not_served(server: Server) -> None:
    server.configure()
    (server.directory / "app.py").write_text(
        "from flask import Flask\nfrom flask_m9m import M9M\napp = Flask(__name__)\nM9M(app)\n"
        "app.add_url_rule('/scheme', 'scheme', lambda: str(app.debug))\n"
    )
    server.start(FLASK_DEBUG="1")
    assert server.get("/scheme") == (200, b"False")


def test_what_is_on_is_said_and_no_secret(server: Server) -> None:
    secret = "not-to-be-shown-" * 4
    server.configure(
        security={"jwt": {"secret": secret}, "cors": {"allowed_origins": ["https://a.example"]}},
        performance={"rate_limit": {"enabled": True, "requests_per_minute": 700, "burst": 70}},
        server={"trusted_proxies": ["10.0.0.0/8"], "https": "off"},
    )
    server.start()
    said = server.said()
    for part in (
        f"http://127.0.0.1:{server.port}, 2 workers of 4 threads",
        "TLS: off",
        "plain HTTP: answered; trusted proxies: 10.0.0.0/8",
        "bearer",
        "700 per minute, burst 70, by address, counted by all workers of this machine",
        "CORS: https://a.example",
        "security headers: api",
    ):
        assert part in said
    assert secret not in said


@BOTH
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_development_mode_stays_on_loopback(
    server: Server, command: tuple[str, ...], host: str
) -> None:
    server.configure(server={"host": host}, development={"enabled": True})
    said = server.refuse(*command)
    assert "development.enabled" in said
    assert "loopback" in said


def test_development_mode_stays_on_loopback_whatever_gunicorn_is_told(server: Server) -> None:
    server.configure(development={"enabled": True})
    command = (*GUNICORN, "--bind", f"0.0.0.0:{server.port}")
    assert "development.enabled" in server.refuse(*command)


def test_a_unix_socket_is_served(server: Server) -> None:
    server.configure(server={"trusted_proxies": ["unix"]})
    path = server.directory / "app.sock"
    binds = ("--bind", f"unix:{path}", "--bind", f"127.0.0.1:{server.port}")
    server.start(*GUNICORN[:-1], *binds, GUNICORN[-1])
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(
            b"GET /scheme HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\n"
            b"Connection: close\r\n\r\n"
        )
        answer = read_all(client)
    assert b'"http"' in answer  # gunicorn believes nobody, and the guard this one
    assert b"\r\nStrict-Transport-Security: " in answer


def no_files(pair: Pair) -> dict[str, Any]:
    return {"enabled": True}


def no_key(pair: Pair) -> dict[str, Any]:
    pair.key.unlink()
    return {"enabled": True, "cert_file": str(pair.certificate), "key_file": str(pair.key)}


def readable_key(pair: Pair) -> dict[str, Any]:
    pair.key.chmod(0o644)
    return {"enabled": True, "cert_file": str(pair.certificate), "key_file": str(pair.key)}


@BOTH
@pytest.mark.parametrize(
    ("tls", "named"),
    [(no_files, "server.tls.cert_file"), (no_key, "server.key"), (readable_key, "mode 0644")],
)
def test_a_bad_certificate_is_named_before_anything_listens(
    server: Server, tmp_path: Path, command: tuple[str, ...], tls: Any, named: str
) -> None:
    server.configure(server={"tls": tls(make_certificate(tmp_path))})
    said = server.refuse(*command)
    assert named in said
    assert "server.tls" in said
    assert "Traceback" not in said


@BOTH
def test_bad_settings_are_listed(server: Server, command: tuple[str, ...]) -> None:
    server.configure(server={"prot": 1}, security={"cors": {"max_age": "soon"}})
    said = server.refuse(*command)
    assert "server.prot" in said
    assert "security.cors.max_age" in said
    assert "Traceback" not in said


def test_a_port_in_use_is_named(server: Server) -> None:
    server.configure()
    with socket.create_server(("127.0.0.1", server.port)):
        said = server.refuse()
    assert "server.port" in said
    assert "in use" in said


def test_an_address_of_another_machine_is_named(server: Server) -> None:
    server.configure(server={"host": "192.0.2.1"})
    assert "server.host" in server.refuse()


def test_a_directory_of_rate_limits_that_others_write_is_named(server: Server) -> None:
    directory = server.directory / "limits"
    directory.mkdir()
    directory.chmod(0o777)
    server.configure(performance={"rate_limit": {"enabled": True, "path": str(directory)}})
    said = server.refuse()
    assert "performance.rate_limit.path" in said


def test_undecided_routes_are_named(server: Server) -> None:
    server.configure(security={"jwt": {"secret": "x" * 64}, "default_access": "authenticated"})
    server.start()
    assert "undecided, so they need authentication: index, scheme, slow, unread" in server.said()


def test_contradicting_marks_stop_the_start(server: Server) -> None:
    server.configure()
    (server.directory / "app.py").write_text(
        "from flask import Flask\nfrom flask_m9m import M9M, require_auth\n"
        "app = Flask(__name__)\nM9M(app)\n"
        "@app.get('/')\n@require_auth(schemes=['bearer'])\ndef index(): return ''\n"
    )
    assert "route index: it needs authentication" in server.refuse()


def test_without_gunicorn_the_remedy_is_named(server: Server) -> None:
    server.configure()
    code = (
        "import importlib.util as u, runpy, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'gunicorn' else find(name, *a)\n"
        "sys.argv = ['flask', 'm9m', 'serve']; runpy.run_module('flask', run_name='__main__')\n"
    )
    (server.directory / "without.py").write_text(code)
    assert "pip install 'flask-m9m[serve]'" in server.refuse("without")


def test_workers_are_not_for_development(server: Server) -> None:
    server.configure()
    command = [sys.executable, "-m", "flask", "m9m", "serve", "--dev", "--workers", "2"]
    result = subprocess.run(command, cwd=server.directory, capture_output=True, timeout=60)
    assert result.returncode == 2


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_old_versions_of_tls_are_refused(server: Server, tmp_path: Path, version: str) -> None:
    server.configure(make_certificate(tmp_path), server={"tls": {"min_version": version}})
    server.start()

    def spoken(exact: ssl.TLSVersion) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = exact
        try:
            with context.wrap_socket(server.dial()) as wrapped:
                return wrapped.version()
        except (ssl.SSLError, ConnectionError):
            return None

    tls = ssl.TLSVersion
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert spoken(tls.TLSv1) is None
        assert spoken(tls.TLSv1_1) is None
    assert spoken(tls.TLSv1_2) == ("TLSv1.2" if version == "1.2" else None)
    assert spoken(tls.TLSv1_3) == "TLSv1.3"
    assert b'"https"' in server.get("/scheme")[1]
