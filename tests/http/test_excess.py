"""Fields with more parts than any client sends are refused, after networks and limits."""

from __future__ import annotations

import json
from http.cookies import SimpleCookie
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from werkzeug.test import create_environ, run_wsgi_app

from flask_m9m.http.excess import cut_excess, target_of
from tests.bodies import error_of
from tests.conftest import MakeApp

EXCESSIVE = [
    ("HTTP_COOKIE", "a=b; " * 571, 431, "FIELDS_TOO_LARGE"),
    ("HTTP_COOKIE", 'a="' + "\\\\" * 1_400 + '"', 431, "FIELDS_TOO_LARGE"),
    ("HTTP_COOKIE", 'a="' + "\\054" * 700 + '"', 431, "FIELDS_TOO_LARGE"),
    ("HTTP_COOKIE", 'a="' + "x" * 10_000, 431, "FIELDS_TOO_LARGE"),
    ("HTTP_COOKIE", 'a= "' + "x" * 10_000, 431, "FIELDS_TOO_LARGE"),
    ("HTTP_COOKIE", 'a b="; c="' + "x" * 10_000, 431, "FIELDS_TOO_LARGE"),  # only c is a name
    ("HTTP_COOKIE", '="' * 571 + "; ", 431, "FIELDS_TOO_LARGE"),
    ("HTTP_CONNECTION", "," * 513, 431, "FIELDS_TOO_LARGE"),
    ("HTTP_HOST", "a." * 131, 400, "INVALID_REQUEST"),
    ("HTTP_HOST", "[127.0.0.1]", 400, "INVALID_REQUEST"),
    ("PATH_INFO", "/a" * 1_025, 414, "URI_TOO_LONG"),
]
LONG_JSON = json.dumps([{"id": n, "name": f"thing, {n}", "shown": True} for n in range(80)])
USUAL = [
    ("HTTP_COOKIE", "; ".join(f"name{n}=value" for n in range(180))),  # the most of any browser
    ("HTTP_COOKIE", "session=" + "x" * 16_000),
    ("HTTP_COOKIE", 'a="{' + '\\"b\\"\\054' * 120 + '}"'),  # JSON, as Werkzeug writes it
    ("HTTP_COOKIE", f"prefs={LONG_JSON}"),
    ("HTTP_COOKIE", SimpleCookie({"prefs": LONG_JSON}).output(header="").strip()[:4_096]),
    ("HTTP_COOKIE", f"prefs={json.dumps(LONG_JSON)}"[:4_096]),
    ("HTTP_COOKIE", 'g_state={"i_l":0}; ' + "; ".join(f"n{n}=" + "x" * 240 for n in range(32))),
    ("HTTP_CONNECTION", "keep-alive, Upgrade, HTTP2-Settings"),
    ("HTTP_HOST", "a." * 126 + "a:65535"),
    ("HTTP_HOST", "[::1]:8080"),
    ("HTTP_HOST", "[::ffff:192.0.2.1]"),
    ("PATH_INFO", "/" + "a" * 16_000),
    ("PATH_INFO", "/a" * 1_024),
]


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    app = make_app(secret_key="k" * 32)
    app.add_url_rule("/", "root", lambda: "root")
    app.add_url_rule("/<path:path>", "any", lambda path: "any")
    return app.test_client(use_cookies=False)


@pytest.mark.parametrize(("field", "value", "status", "code"), EXCESSIVE)
def test_what_no_client_sends_is_refused(
    client: FlaskClient, field: str, value: str, status: int, code: str
) -> None:
    answer = client.get("/", environ_overrides={field: value})
    assert (answer.status_code, error_of(answer)["code"]) == (status, code)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_redirect_never_fails_for_a_host_that_is_no_address(make_app: MakeApp) -> None:
    """Werkzeug's redirect to a path with a slash raises for such a host."""
    app = make_app(TESTING=False, PROPAGATE_EXCEPTIONS=False)
    app.add_url_rule("/x/", "x", lambda: "x")
    environ = {**create_environ("/x"), "HTTP_HOST": "[::1:]"}
    assert run_wsgi_app(app, environ)[1].startswith("400 ")


@pytest.mark.parametrize(("field", "value"), USUAL)
def test_what_a_client_sends_is_not(client: FlaskClient, field: str, value: str) -> None:
    assert client.get("/", environ_overrides={field: value}).status_code == 200


@pytest.mark.parametrize(("field", "value", "status", "code"), EXCESSIVE)
def test_networks_and_limits_come_first(
    make_app: MakeApp, field: str, value: str, status: int, code: str
) -> None:
    limit = {"enabled": True, "requests_per_minute": 1, "burst": 1, "storage": "memory"}
    app = make_app(
        {
            "server": {"allowed_networks": ["127.0.0.1"]},
            "performance": {"rate_limit": limit},
        }
    )

    def ask(address: str) -> int:
        overrides = {field: value, "REMOTE_ADDR": address}
        return app.test_client(use_cookies=False).get("/", environ_overrides=overrides).status_code

    assert ask("192.0.2.1") == 403
    assert ask("127.0.0.1") == status
    assert ask("127.0.0.1") == 429


def test_nothing_of_the_app_sees_a_request_that_was_cut(client: FlaskClient) -> None:
    seen = []
    app: Flask = client.application  # type: ignore[assignment]

    @app.url_value_preprocessor
    def note(endpoint: str | None, values: Any) -> None:
        seen.append(request.path)

    for field, value, *_ in EXCESSIVE:
        client.get("/x", environ_overrides={field: value})
    assert not seen


def test_everything_excessive_is_cut_at_once() -> None:
    environ: dict[str, Any] = {field: value for field, value, *_ in EXCESSIVE}
    assert cut_excess(environ) is not None
    assert set(environ) == {"PATH_INFO"}
    assert len(environ["PATH_INFO"]) == 1_024
    assert cut_excess(environ) is None


@pytest.mark.parametrize(
    ("environ", "target"),
    [
        ({}, "/"),
        ({"PATH_INFO": "/x"}, "/x"),
        ({"PATH_INFO": "//evil.example/x"}, "/evil.example/x"),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/a b/\xc3\xa9%2f"}, "/app/a%20b/%C3%A9%252f"),
        ({"PATH_INFO": "/x", "QUERY_STRING": "a=b%20c&d=\xe9?#"}, "/x?a=b%20c&d=%E9?%23"),
        ({"PATH_INFO": "/x\r\ny", "QUERY_STRING": "\r\n"}, "/x%0D%0Ay?%0D%0A"),
    ],
)
def test_the_target_of_a_redirect_is_ascii(environ: dict[str, str], target: str) -> None:
    assert target_of(environ) == target


def test_a_url_that_is_too_long_is_not_redirected_to(make_app: MakeApp) -> None:
    client = make_app({"server": {"https": "redirect"}}).test_client()
    for length, status in ((8_000, 308), (8_192, 414)):
        answer = client.get("/x?" + "a" * length, base_url="http://api.example.com")
        assert answer.status_code == status


def test_werkzeug_redirects_to_no_url_that_costs_too_much_to_encode(make_app: MakeApp) -> None:
    app = make_app()
    app.add_url_rule("/x/", "x", lambda: "x")
    client = app.test_client()
    assert client.get("/x", query_string="a" * 6_000).status_code == 308
    refused = client.get("/x", environ_overrides={"QUERY_STRING": "é" + "a" * 2_100})
    assert (refused.status_code, error_of(refused)["code"]) == (414, "URI_TOO_LONG")
    assert client.get("/x", query_string="a" * 6_200).status_code == 414
