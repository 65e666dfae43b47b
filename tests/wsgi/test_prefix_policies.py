"""Which policy holds for a path and a method, and which paths are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_m9m import M9MMiddleware, SettingsError
from flask_m9m.testing import make_settings
from flask_m9m.wsgi.prefix_policies import path_of
from tests.wsgi.conftest import Guarded, ask, client_as, echo

CLOSED = {"security": {"default_access": "authenticated"}}
ADMIN = [{"prefix": "/admin", "access": "authenticated"}]


@pytest.mark.parametrize(
    "path", ["/admin", "/admin/", "/admin/x", "/admin/x/y/z", "/admin/x//"[:-1], "/admin/;x"]
)
def test_a_prefix_holds_for_all_below_it(guarded: Guarded, path: str) -> None:
    assert ask(guarded(ADMIN), path)[0] == "401"


@pytest.mark.parametrize(
    "path", ["", "/", "/administrator", "/admi", "/Admin", "/x/admin", "/admin;x", "/admin.html"]
)
def test_a_prefix_holds_in_whole_segments_and_as_it_is_written(guarded: Guarded, path: str) -> None:
    app = guarded(ADMIN)
    assert ask(app, path)[0] == "200"
    assert ask(guarded(ADMIN, CLOSED), path)[0] == "401"


@pytest.mark.parametrize(
    "path",
    [
        "//",
        "//admin",
        "/x//admin",
        "/admin//",
        "/./admin",
        "/.",
        "/..",
        "/x/../admin",
        "/x/..",
        "/public/..;/admin",
        "/x/..;a=b",
        "\\admin",
        "/x\\..\\admin",
        "/x\x00",
        "/admin\n",
        "/admin\r",
        "/x\x7f",
        "/\xffadmin",
        "/ad\xc0\xafmin",
        "/\xed\xa0\x80",
        "/\u0141",
        "admin",
        "*",
        "http://example.com/admin",
    ],
)
def test_a_path_that_can_be_read_in_several_ways_is_refused(guarded: Guarded, path: str) -> None:
    app = guarded([{"prefix": "/", "access": "public"}])
    status, headers, body = ask(app, path)
    assert status == "400"
    assert b'"code": "INVALID_REQUEST"' in body
    assert headers.getlist("X-Frame-Options") == ["DENY"]
    assert ask(app, path, HTTP_AUTHORIZATION="Bearer x")[0] == "400"


@pytest.mark.parametrize(
    "path", ["/.well-known/x", "/...", "/a..b", "/caf\xc3\xa9", "/a b", "/%2e"]
)
def test_other_paths_reach_the_app(guarded: Guarded, path: str) -> None:
    assert ask(guarded(), path)[0] == "200"


@pytest.mark.parametrize(
    ("script_name", "path", "status"),
    [
        ("/app", "/admin", "401"),
        ("/app/admin", "", "401"),
        ("/app/admin", "/x", "401"),
        ("", "/admin", "200"),
        ("/app", "", "200"),
        ("/app", "admin", "400"),
        ("/app/", "/admin", "400"),
        ("app", "/admin", "400"),
        ("/", "", "200"),
        ("/app/ad", "min", "400"),
    ],
)
def test_a_path_begins_where_the_app_is_mounted(
    guarded: Guarded, script_name: str, path: str, status: str
) -> None:
    app = guarded([{"prefix": "/app/admin", "access": "authenticated"}])
    assert ask(app, path, SCRIPT_NAME=script_name)[0] == status


def test_a_request_does_not_say_where_the_app_is_mounted(guarded: Guarded) -> None:
    policies = [
        {"prefix": "/admin", "access": "authenticated"},
        {"prefix": "/app/admin", "access": "authenticated"},
    ]
    # gunicorn under `SCRIPT_NAME: /public`, asked for /public/admin
    moved = {"SCRIPT_NAME": "/public", "HTTP_SCRIPT_NAME": "/public"}
    assert ask(guarded(policies), "/admin", **moved)[0] == "400"
    app = guarded(policies, mounted_at="/app")
    assert ask(app, "/admin", **moved)[0] == "400"
    assert ask(app, "/admin")[0] == "400"
    proxied = {"SCRIPT_NAME": "/app", "HTTP_SCRIPT_NAME": "/app"}
    assert [ask(app, path, **proxied)[0] for path in ("/admin", "/x")] == ["401", "200"]
    at_root = guarded(policies, mounted_at="")
    assert [ask(at_root, "/x", **one)[0] for one in (moved, {})] == ["400", "200"]
    beyond = guarded(mounted_at="/caf\u00e9")
    assert ask(beyond, "/x", SCRIPT_NAME="/caf\xc3\xa9")[0] == "200"


@pytest.mark.parametrize("mounted_at", ["/", "app", "/app/", "/a//b"])
def test_what_is_no_mount_point_is_refused(guarded: Guarded, mounted_at: str) -> None:
    with pytest.raises(SettingsError, match="mounted_at"):
        guarded(mounted_at=mounted_at)


def test_a_prefix_beyond_ascii_is_compared_decoded(guarded: Guarded) -> None:
    app = guarded([{"prefix": "/café", "access": "authenticated"}])
    assert ask(app, "/caf\xc3\xa9/x")[0] == "401"
    assert ask(app, "/cafe\xcc\x81")[0] == "200"


def test_the_longest_prefix_decides_access(guarded: Guarded) -> None:
    app = guarded(
        [
            {"prefix": "/", "access": "authenticated"},
            {"prefix": "/docs", "access": "public"},
            {"prefix": "/docs/internal", "scopes": "docs:internal"},
            {"prefix": "/docs/internal/maybe", "access": "optional"},
        ]
    )
    paths = ["/", "/x", "/docs", "/docs/a", "/docs/internal/a", "/docs/internal/maybe"]
    assert [ask(app, path)[0] for path in paths] == ["401", "401", "200", "200", "401", "200"]
    ann = client_as(app, "ann")
    assert ann.get("/docs/internal").status_code == 403
    assert ann.get("/docs/internal/maybe").text == "ann"
    assert ann.get("/docs").text == "nobody"
    assert client_as(app, "ann", "docs:internal").get("/docs/internal").text == "ann"


def test_a_policy_that_says_nothing_of_access_leaves_it_as_it_is(guarded: Guarded) -> None:
    app = guarded([*ADMIN, {"prefix": "/admin/reports", "rate_limit": "1/hour"}])
    assert ask(app, "/admin/reports")[0] == "401"
    ann = client_as(app, "ann")
    assert [ann.get("/admin/reports/1").status_code for _ in range(2)] == [200, 429]


def test_a_policy_with_methods_leaves_the_others_to_the_next_shorter_prefix(
    guarded: Guarded,
) -> None:
    app = guarded([*ADMIN, {"prefix": "/admin/status", "methods": ["GET"], "access": "public"}])
    answers = {
        method: ask(app, "/admin/status", method)[0]
        for method in ("GET", "HEAD", "get", "POST", "OPTIONS", "PROPFIND", "post", "")
    }
    assert [method for method, status in answers.items() if status == "200"] == [
        "GET",
        "HEAD",
        "get",
    ]
    assert set(answers.values()) == {"200", "401"}


def test_at_one_prefix_the_policy_that_names_the_method_comes_first(guarded: Guarded) -> None:
    app = guarded(
        [
            {"prefix": "/items", "access": "authenticated"},
            {"prefix": "/items", "methods": ["GET"], "access": "public"},
            {"prefix": "/items", "methods": ["DELETE"], "roles": "admin"},
        ]
    )
    assert [ask(app, "/items/1", one)[0] for one in ("GET", "POST", "FOO")] == ["200", "401", "401"]
    ann = client_as(app, "ann")
    assert [ann.post("/items").status_code, ann.delete("/items/1").status_code] == [200, 403]


@pytest.mark.parametrize(
    ("default", "policies", "left_open"),
    [
        ("public", [{"prefix": "/a", "methods": ["POST"], "scopes": "x"}], True),
        ("authenticated", [{"prefix": "/a", "methods": ["POST"], "scopes": "x"}], False),
        (
            "authenticated",
            [
                {"prefix": "/", "access": "public"},
                {"prefix": "/a", "methods": ["POST"], "access": "authenticated"},
            ],
            True,
        ),
        (
            "authenticated",
            [
                {"prefix": "/", "methods": ["GET"], "access": "public"},
                {"prefix": "/a", "methods": ["POST"], "access": "authenticated"},
            ],
            True,
        ),
        (
            "public",
            [
                {"prefix": "/a", "access": "public"},
                {"prefix": "/a", "methods": ["POST"], "access": "authenticated"},
            ],
            False,
        ),
        (
            "public",
            [
                {"prefix": "/a", "access": "optional"},
                {"prefix": "/a/b", "methods": ["POST"], "access": "authenticated"},
            ],
            True,
        ),
        (
            "authenticated",
            [
                {"prefix": "/a", "methods": ["GET"], "access": "public"},
                {"prefix": "/a", "methods": ["POST"], "access": "authenticated"},
            ],
            False,
        ),
    ],
)
def test_what_closes_some_methods_does_not_leave_others_open_unsaid(
    default: str, policies: Any, left_open: bool
) -> None:
    settings = make_settings({"security": {"default_access": default}})
    if not left_open:
        M9MMiddleware(echo, settings=settings, policies=policies)
        return
    with pytest.raises(SettingsError, match="open") as raised:
        M9MMiddleware(echo, settings=settings, policies=policies)
    assert [one.path for one in raised.value.problems] == [f"policies[{len(policies) - 1}].methods"]


def test_rate_limits_add_up_and_are_one_budget_for_all_paths_below(guarded: Guarded) -> None:
    app = guarded(
        [
            {"prefix": "/", "rate_limit": "4/hour"},
            {"prefix": "/a", "rate_limit": "2/hour"},
            {"prefix": "/a", "methods": ["POST"], "rate_limit": "1/hour"},
        ]
    )
    assert [ask(app, f"/a/{one}")[0] for one in "xyz"] == ["200", "200", "429"]
    assert [ask(app, "/b")[0] for _ in range(3)] == ["200", "200", "429"]
    assert ask(app, "/b", REMOTE_ADDR="192.0.2.1")[0] == "200"


SEGMENTS = st.lists(st.text("ab.;/%\\ \u00e9\x00", max_size=4), max_size=5)


@given(SEGMENTS, SEGMENTS)
def test_a_path_is_refused_or_read_as_everyone_reads_it(
    mounted: list[str], rest: list[str]
) -> None:
    import posixpath

    environ = {"SCRIPT_NAME": "/".join(mounted), "PATH_INFO": "/".join(rest)}
    encoded = {key: value.encode().decode("latin-1") for key, value in environ.items()}
    path = path_of(encoded)
    if path is None:
        return
    assert path == environ["SCRIPT_NAME"] + environ["PATH_INFO"] or path == "/"
    assert path.startswith("/")
    assert posixpath.normpath(path) == (path.rstrip("/") or "/")
