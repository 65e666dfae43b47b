"""Hostile requests get a clear refusal, never a 500, and nothing secret back."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_m9m import M9M, current_identity, require_auth
from flask_m9m.testing import Clock, client_as, make_settings
from tests.bodies import error_of
from tests.conftest import CHALLENGES, MakeApp

SECRET = base64.b64encode(bytes(range(48))).decode()
JWT = {"security": {"jwt": {"secret": SECRET, "issuer": "https://idp", "audience": "app"}}}


def b64(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture
def guarded(make_app: MakeApp) -> Flask:
    app = make_app(JWT)
    app.add_url_rule("/p", "p", require_auth(lambda: current_identity.subject))
    return app


@pytest.fixture
def client(guarded: Flask) -> FlaskClient:
    return guarded.test_client()


@pytest.fixture
def good(clock: Clock) -> dict[str, Any]:
    now = int(clock())
    return {"sub": "ann", "iss": "https://idp", "aud": "app", "iat": now, "exp": now + 60}


def get(client: FlaskClient, authorization: str) -> Any:
    return client.get("/p", environ_overrides={"HTTP_AUTHORIZATION": authorization})


def assert_invalid(answer: Any) -> None:
    assert answer.status_code == 401
    assert error_of(answer) == {
        "error": "Unauthorized",
        "code": "INVALID_TOKEN",
        "message": "invalid or expired token",
    }
    assert answer.headers.getlist("WWW-Authenticate") == [
        'Bearer realm="m9m", error="invalid_token"',
        CHALLENGES[1],
    ]


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 0, ["HS256"], "RS256"])
@pytest.mark.parametrize("signed", [True, False])
def test_an_algorithm_of_the_tokens_choosing_is_refused(
    client: FlaskClient, good: dict[str, Any], alg: object, signed: bool
) -> None:
    header = b64({"alg": alg, "typ": "at+jwt"})
    signature = jwt.encode(good, SECRET).rpartition(".")[2] if signed else ""
    assert_invalid(get(client, f"Bearer {header}.{b64(good)}.{signature}"))


@pytest.mark.parametrize(
    "kid", ["../../dev/null", "' OR 1=1--", "|sleep 10", "x" * 5000, 7, None, ["a"], "unknown"]
)
def test_a_hostile_key_id_is_only_refused(
    client: FlaskClient, good: dict[str, Any], kid: Any
) -> None:
    header = b64({"alg": "HS256", "typ": "at+jwt", "kid": kid})
    assert_invalid(get(client, f"Bearer {header}.{b64(good)}.AAAA"))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"exp": -1}, 401),
        ({"exp": 0}, 401),
        ({"exp": 1}, 200),
        ({"iss": "https://idp.evil"}, 401),
        ({"iss": None}, 401),
        ({"aud": "ap"}, 401),
        ({"aud": ["app", "other"]}, 200),
        ({"aud": None}, 401),
        ({"nbf": 6}, 401),
        ({"nbf": 5}, 200),
        ({"iat": 6}, 401),
        ({"token_type": "refresh"}, 401),
        ({"type": "refresh"}, 401),
        ({"nonce": "x"}, 401),
        ({"at_hash": "x"}, 401),
        ({"sub": 7}, 401),
        ({"jti": 7}, 401),
        ({"sub": "\ud800"}, 401),
    ],
)
def test_claims_are_judged_over_http(
    client: FlaskClient, good: dict[str, Any], clock: Clock, change: dict[str, Any], status: int
) -> None:
    for name, value in change.items():
        if value is None:
            del good[name]
        else:
            dated = name in ("exp", "nbf", "iat")
            good[name] = int(clock()) + value if dated else value
    answer = get(client, f"Bearer {jwt.encode(good, SECRET)}")
    assert answer.status_code == status
    if status == 401:
        assert_invalid(answer)


@pytest.mark.parametrize(
    "template",
    [
        "Bearer {0} {0}",
        "Bearer\t{0}",
        "Bearer {0},Bearer {0}",
        "Bearer {0}=",
        "Bearer {0}.x",
        "Bearer .{0}",
        "Bearer {0}\x00",
        "Bearer",
        "Bearer ",
        "Bearer \xff\xfe",
        'Bearer {{"payload": 1}}',
        "{0}",
        "",
        " ",
        "Basic YTpi",
        "Digest x",
        "\x00\x01\x02",
    ],
)
def test_an_authorization_that_cannot_be_read_is_a_401(
    guarded: Flask, client: FlaskClient, template: str
) -> None:
    token = client_as(guarded, "ann").environ_base["HTTP_AUTHORIZATION"].split()[1]
    answer = get(client, template.format(token))
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="m9m"')
    assert token not in answer.text + str(answer.headers)


@pytest.mark.parametrize("template", ["bearer {}", "BEARER {}", "Bearer   {}"])
def test_the_schemes_case_and_several_spaces_do_not_matter(
    guarded: Flask, client: FlaskClient, template: str
) -> None:
    token = client_as(guarded, "ann").environ_base["HTTP_AUTHORIZATION"].split()[1]
    assert get(client, template.format(token)).text == "ann"


@pytest.mark.parametrize("size", [8_193, 100_000, 5_000_000])
@pytest.mark.parametrize("kind", ["a", ".", "[", "eyJ"])
def test_a_huge_token_is_refused(client: FlaskClient, size: int, kind: str) -> None:
    assert_invalid(get(client, "Bearer " + kind * (size // len(kind))))


@pytest.mark.parametrize("nested", ["[" * 3000, '{"a":' * 1000, "9" * 5000, "1e400", "NaN"])
def test_json_that_would_break_a_parser_is_refused(client: FlaskClient, nested: str) -> None:
    header = b64({"alg": "HS256"})
    assert_invalid(get(client, f"Bearer {b64(nested.encode())}.{b64({})}.AAAA"))
    assert_invalid(get(client, f"Bearer {header}.{b64(nested.encode())}.AAAA"))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "HTTP_AUTHORIZATION",
                "HTTP_X_API_KEY",
                "HTTP_ORIGIN",
                "HTTP_ACCESS_CONTROL_REQUEST_METHOD",
                "HTTP_ACCESS_CONTROL_REQUEST_HEADERS",
                "HTTP_X_FORWARDED_FOR",
                "HTTP_X_FORWARDED_PROTO",
                "HTTP_X_FORWARDED_HOST",
                "HTTP_FORWARDED",
                "HTTP_ACCEPT",
                "HTTP_COOKIE",
                "REMOTE_ADDR",
                "QUERY_STRING",
            ]
        ),
        st.text(st.characters(max_codepoint=255), max_size=80),
    ),
    st.sampled_from(["GET", "HEAD", "OPTIONS", "POST", "TRACE", "CONNECT", "BREW", "get"]),
    st.sampled_from(["/p", "/nowhere", "//p", "/p/../p", "/%2f"]),
)
def test_no_header_ever_makes_a_server_error(
    environ: dict[str, str], method: str, path: str
) -> None:
    app = _fuzzed_app()
    answer = app.test_client().open(path, method=method, environ_overrides=environ)
    assert answer.status_code in (200, 204, 308, 400, 401, 403, 404, 405)
    for name, value in answer.headers:
        assert not set("\r\n\x00") & set(name + value)


_apps: list[Flask] = []


def _fuzzed_app() -> Flask:
    if not _apps:
        app = Flask("fuzzed")
        app.testing = True
        fuzzed = {
            "server": {"trusted_proxies": ["127.0.0.1", "unix"], "trust_forwarded_host": True},
            "security": {
                "cors": {
                    "allowed_origins": ["https://*.example.com"],
                    "allowed_headers": ["*"],
                    "allow_credentials": True,
                }
            },
        }
        M9M(app, settings=make_settings(fuzzed))
        app.add_url_rule("/p", "p", require_auth(lambda: "p"), methods=["GET", "POST"])
        _apps.append(app)
    return _apps[0]


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW", "GET\x00", "OPTION"])
def test_unknown_methods_are_refused(client: FlaskClient, method: str) -> None:
    assert client.open("/p", method=method).status_code == 405


BYPASSES = [
    "https://app.example.com.evil.net",
    "https://evil-app.example.com.evil.net",
    "https://evilapp.example.com",
    "https://app.example.comevil",
    "https://app-example.com",
    "https://appXexample.com",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com:443",
    "https://app.example.com/",
    "https://app.example.com.",
    "https://APP.example.com",
    "HTTPS://app.example.com",
    "https://user@app.example.com",
    "https://app.example.com@evil.net",
    "https://app.example.com#.evil.net",
    "https://app.example.com%60.evil.net",
    "https://app.example.com_.evil.net",
    "https://app.example.com\\.evil.net",
    "https://app.example.com,https://evil.net",
    "https://app.example.com https://evil.net",
    "https://evil.net https://app.example.com",
    " https://app.example.com",
    "https://app.example.com\x00.evil.net",
    "https://app.example.com\t",
    "null",
    "file://",
    "*",
    "",
    "https://",
    "https://example.com",
    "https://localhost",
    "https://app.\xe9xample.com",
]


@pytest.mark.parametrize("origin", BYPASSES)
def test_no_look_alike_of_an_origin_is_let_in(make_app: MakeApp, origin: str) -> None:
    app = make_app({"security": {"cors": {"allowed_origins": ["https://app.example.com"]}}})
    client = app.test_client()
    for method, asked in (("GET", {}), ("OPTIONS", {"HTTP_ACCESS_CONTROL_REQUEST_METHOD": "GET"})):
        answer = client.open("/", method=method, environ_overrides={"HTTP_ORIGIN": origin, **asked})
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
        assert not set("\r\n\x00") & set(str(answer.headers).replace("\r\n", "").replace("\n", ""))


def test_private_network_access_is_never_granted(make_app: MakeApp) -> None:
    """CVE-2024-6221 of Flask-CORS."""
    origin = "https://app.example.com"
    app = make_app({"security": {"cors": {"allowed_origins": [origin]}}})
    answer = app.test_client().options(
        "/",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Private-Network": "true",
        },
    )
    assert answer.status_code == 204
    assert "Access-Control-Allow-Private-Network" not in answer.headers


@pytest.mark.parametrize("path", ["/Admin", "/a b", "//admin", "/x/../admin", "/%2fadmin", "/a+b"])
def test_a_route_is_judged_by_its_endpoint_and_not_by_its_path(
    make_app: MakeApp, path: str
) -> None:
    """CVE-2020-25032, CVE-2024-6844 and CVE-2024-6866 of Flask-CORS."""
    app = make_app()
    ran = []
    for number, rule in enumerate(["/admin", "/a+b", "/a b"]):
        app.add_url_rule(rule, str(number), require_auth(lambda: ran.append(1) or ""))
    assert app.test_client().get(path).status_code in (308, 401, 404)
    assert not ran


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def test_nothing_hostile_or_secret_reaches_the_log(
    guarded: Flask, client: FlaskClient, logged: pytest.LogCaptureFixture
) -> None:
    token = client_as(guarded, "ann").environ_base["HTTP_AUTHORIZATION"].split()[1]
    for authorization in (f"Bearer {token}", f"Bearer {token[:-2]}xx", "Bearer a\x1b[31m\r\nx"):
        client.get(
            "/p",
            environ_overrides={
                "HTTP_AUTHORIZATION": authorization,
                "HTTP_USER_AGENT": "\x1b[31m\r\nforged line",
                "HTTP_X_FORWARDED_FOR": "\r\nforged",
            },
        )
    assert token not in logged.text
    assert SECRET not in logged.text
    assert "forged" not in logged.text
    assert "\x1b" not in logged.text


def test_one_key_rotated_out_still_verifies_and_the_new_one_signs(make_app: MakeApp) -> None:
    """CVE-2025-47278 of Flask: after a rotation, see which key signed."""
    old, new = SECRET, SECRET[::-1]
    before = make_app({"security": {"jwt": {"secret": old}}})
    after = make_app({"security": {"jwt": {"secret": new, "previous_secrets": [old]}}})
    tokens = []
    for app in (before, after):
        app.add_url_rule("/p", "p", require_auth(lambda: "p"))
        tokens.append(client_as(app, "ann").environ_base["HTTP_AUTHORIZATION"].split()[1])
    kids = [jwt.get_unverified_header(token)["kid"] for token in tokens]
    assert kids[0] != kids[1]
    assert [get(after.test_client(), f"Bearer {token}").status_code for token in tokens] == [
        200
    ] * 2
    assert get(before.test_client(), f"Bearer {tokens[1]}").status_code == 401


def test_a_token_expires_although_it_is_cached(
    guarded: Flask, client: FlaskClient, clock: Clock
) -> None:
    with guarded.app_context():
        token = guarded.extensions["m9m"].identities.tokens.issue("ann", expires_in="1m30s")
    assert [get(client, f"Bearer {token}").status_code for _ in range(2)] == [200, 200]
    clock.advance(89)
    assert get(client, f"Bearer {token}").status_code == 200
    clock.advance(1)
    assert_invalid(get(client, f"Bearer {token}"))
    clock.advance(-3600)
    assert get(client, f"Bearer {token}").status_code == 401
