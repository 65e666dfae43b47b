"""One settings file in front of Bottle, Django, Falcon and Flask: the answers are the same."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from werkzeug.test import Client, TestResponse

from tests.bodies import error_of
from tests.wsgi.conftest import serve

FOLDER = Path(__file__).parents[2] / "examples" / "four_frameworks"
ORIGIN = "https://app.example.com"
FRAMEWORKS = ("bottle", "django", "falcon", "flask")
OURS = (
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
    "Content-Security-Policy",
    "Referrer-Policy",
    "Permissions-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Vary",
)
PREFLIGHT = {"Access-Control-Request-Headers": "authorization"}

ANN: dict[str, Any] = {"token": ("ann", [])}
ROOT: dict[str, Any] = {"token": ("root", ["admin"])}
BOTH = {"headers": {"X-API-Key": "m9m_sk_x"}}
OTHER_ORIGIN = {"headers": {"Origin": "https://evil.example"}}

CASES: list[tuple[str, str, dict[str, Any], int, Any]] = [
    ("GET", "/public", {}, 200, {"open": True}),
    ("GET", "/public", {"headers": {"Authorization": "Bearer x"}}, 200, {"open": True}),
    ("HEAD", "/public", {}, 200, None),
    ("GET", "/public", OTHER_ORIGIN, 200, {"open": True}),
    ("POST", "/public", {}, 405, None),
    ("GET", "/me", {}, 401, "AUTH_REQUIRED"),
    ("HEAD", "/me", {}, 401, None),
    ("GET", "/me", {"headers": {"Authorization": "Bearer x"}}, 401, "INVALID_TOKEN"),
    ("GET", "/me", {"headers": {"Authorization": "Basic eDp5"}}, 401, "INVALID_CREDENTIALS"),
    ("GET", "/me", {"headers": {"X-API-Key": "m9m_sk_x"}}, 401, "INVALID_API_KEY"),
    ("GET", "/me", {**ANN, **BOTH}, 400, "INVALID_REQUEST"),
    ("GET", "/me", {"headers": {"Accept": "application/problem+json"}}, 401, "AUTH_REQUIRED"),
    ("GET", "/me", ANN, 200, {"subject": "ann"}),
    ("GET", "/me?x=1", ANN, 200, {"subject": "ann"}),
    ("GET", "/admin", {}, 401, "AUTH_REQUIRED"),
    ("GET", "/admin", ANN, 403, "ACCESS_DENIED"),
    ("GET", "/admin", ROOT, 200, {"admin": "root"}),
    ("GET", "/nowhere", ANN, 404, None),
    ("POST", "/items", {"json": {"a": 1}}, 401, "AUTH_REQUIRED"),
    ("POST", "/items", {**ANN, "json": {"a": 1}}, 201, {"item": {"a": 1}, "owner": "ann"}),
    ("DELETE", "/items", ROOT, 405, None),
    ("GET", "/stream", {}, 200, None),
    ("GET", "/fail", {}, 500, None),
]


@pytest.fixture(scope="module")
def apps() -> Iterator[dict[str, Any]]:
    loaded = {}
    os.environ["M9M_JWT_SECRET"] = os.urandom(32).hex()
    sys.path.insert(0, str(FOLDER))
    try:
        for name in FRAMEWORKS:
            module_name = f"{name}_app"
            spec = importlib.util.spec_from_file_location(module_name, FOLDER / f"{module_name}.py")
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            loaded[name] = module
        yield loaded
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("policies", *(f"{one}_app" for one in FRAMEWORKS)):
            sys.modules.pop(name, None)
        os.environ.pop("M9M_JWT_SECRET", None)


def issue(module: Any, subject: str, scopes: list[str]) -> str:
    if not hasattr(module, "m9m"):
        return str(module.application.tokens.issue(subject, scopes))
    with module.application.app_context():
        return str(module.m9m.tokens.issue(subject, scopes))


def served(app: Any) -> Any:
    def run(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        status, headers, body = serve(app, environ)
        start_response(status, headers.to_wsgi_list())
        return [body]

    return run


def ask(module: Any, method: str, path: str, address: str, **sent: Any) -> TestResponse:
    headers = {"Origin": ORIGIN, **sent.pop("headers", {})}
    if "token" in sent:
        headers["Authorization"] = f"Bearer {issue(module, *sent.pop('token'))}"
    return Client(served(module.application)).open(
        path, method=method, headers=headers, environ_base={"REMOTE_ADDR": address}, **sent
    )


def fields(answer: TestResponse) -> list[tuple[str, str]]:
    """Return an answer's head without what differs by the moment or by the body's spelling."""
    left_out = ("content-length", "x-ratelimit-reset", "content-type", "allow", "x-request-id")
    return sorted((name, value) for name, value in answer.headers if name.lower() not in left_out)


def names_of(head: list[tuple[str, str]]) -> set[str]:
    return {name for name, _ in head}


@pytest.mark.parametrize(("number", "case"), list(enumerate(CASES)))
def test_the_four_answer_alike(apps: dict[str, Any], number: int, case: Any) -> None:
    method, path, sent, status, body = case
    answers = {
        name: ask(module, method, path, f"192.0.2.{number}", **sent)
        for name, module in apps.items()
    }
    heads = {name: fields(answer) for name, answer in answers.items()}
    for name, answer in answers.items():
        assert (name, answer.status_code) == (name, status)
        for field in OURS:
            assert len(answer.headers.getlist(field)) == 1, (name, field)
        assert len(answer.headers.getlist("RateLimit")) == 1
        allowed = [] if sent is OTHER_ORIGIN else [ORIGIN]
        assert answer.headers.getlist("Access-Control-Allow-Origin") == allowed
        if isinstance(body, str):
            assert answer.json["code"] == body
            assert error_of(answer) == error_of(answers["flask"])
            assert answer.content_type == answers["flask"].content_type
            assert heads[name] == heads["flask"]
        elif body is not None:
            assert answer.json == body
        if path == "/stream":
            assert answer.text == "0\n1\n2\n"
        # Where no route is, Flask has asked nobody who calls: caches may keep that.
        differs = {"Cache-Control"} if status in (404, 405) else set()
        assert names_of(heads[name]) - differs == names_of(heads["flask"]), name


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_preflights_are_answered_alike(apps: dict[str, Any], name: str) -> None:
    def preflight(path: str, method: str, **headers: str) -> TestResponse:
        asked = {"Access-Control-Request-Method": method, **PREFLIGHT, **headers}
        return ask(apps[name], "OPTIONS", path, "198.51.100.1", headers=asked)

    for path, method in (("/me", "GET"), ("/items", "POST"), ("/nowhere", "DELETE")):
        answer = preflight(path, method)
        assert answer.status_code == 204
        assert answer.headers.getlist("Access-Control-Allow-Origin") == [ORIGIN]
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert method in answer.headers["Access-Control-Allow-Methods"].split(", ")
        assert "RateLimit" not in answer.headers
    refused = preflight("/me", "GET", Origin="https://evil.example")
    assert (refused.status_code, refused.json["code"]) == (403, "CORS_REFUSED")  # type: ignore[index]
    assert not [one for one, _ in refused.headers if one.startswith("Access-Control-")]
    # Only Flask's routes are known.
    unsupported = preflight("/me", "DELETE")
    assert unsupported.status_code == (403 if name == "flask" else 204)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_limits_are_counted_alike(apps: dict[str, Any], name: str) -> None:
    def post(subject: str) -> TestResponse:
        return ask(apps[name], "POST", "/items", "198.51.100.2", token=(subject, []), json={"a": 1})

    answers = [post("carl") for _ in range(4)]
    assert [one.status_code for one in answers] == [201, 201, 201, 429]
    assert post("dora").status_code == 201
    limited = answers[-1]
    assert limited.json["code"] == "RATE_LIMITED"  # type: ignore[index]
    assert limited.headers["RateLimit-Policy"] == '"default";q=120;w=60, "items";q=3;w=60'
    assert 1 <= int(limited.headers["Retry-After"]) <= 20
    assert limited.headers["Cache-Control"] == "no-store"
    assert all(len(limited.headers.getlist(one)) == 1 for one in OURS)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_whatever_is_asked_for_counts_against_the_address(apps: dict[str, Any], name: str) -> None:
    paths = ["/public", "/nowhere", "/me", "/fail", "/stream"] * 6
    statuses = [ask(apps[name], "GET", path, "198.51.100.3").status_code for path in paths]
    assert 429 not in statuses[:20]
    assert statuses[-5:].count(429) >= 4  # a token may have come by itself


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_unknown_path_is_closed_where_routes_are_not_known(
    apps: dict[str, Any], name: str
) -> None:
    expected = (404, 405) if name == "flask" else (401, 401)
    asked = (("GET", "/nowhere"), ("PUT", "/items"))
    answers = [ask(apps[name], method, path, "198.51.100.4") for method, path in asked]
    assert tuple(one.status_code for one in answers) == expected


@pytest.mark.parametrize("name", ["bottle", "django", "falcon"])
@pytest.mark.parametrize(
    "path",
    [
        "//me",
        "/public/../me",
        "/public/%2e%2e/me",
        "/public/..%2Fme",
        "/public%2F..%2Fme",
        "/public\\..\\me",
        "/%ffme",
        "/public/%00",
        "/public%0a",
        "/me",
        "/me/",
        "/ME",
        "/me;public",
        "/publicly",
        "/./me",
    ],
)
def test_no_spelling_of_a_path_opens_it(apps: dict[str, Any], name: str, path: str) -> None:
    environ = {"PATH_INFO": unquote_to_bytes(path).decode("latin-1")}
    answer = Client(apps[name].application).get(
        "/", environ_overrides={**environ, "REMOTE_ADDR": "203.0.113.9"}
    )
    assert answer.status_code in (400, 401, 429)
