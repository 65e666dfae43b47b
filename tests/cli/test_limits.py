"""`flask m9m limits …`, on a store that other processes see as well."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from click.testing import Result
from flask import Flask, abort, request

from flask_m9m import M9M, rate_limit, require_auth, unlimited
from flask_m9m.cli import m9m as commands
from flask_m9m.ratelimit import MemoryStore, StoreFailure
from flask_m9m.testing import Clock, client_as, make_settings
from tests.cli.conftest import Folder
from tests.databases import settle

Run = Callable[..., Result]


@pytest.fixture
def app(database_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    monkeypatch.setattr(MemoryStore, "shared", True)
    app = Flask("app")
    app.testing = True
    limit = {"enabled": True, "requests_per_minute": 60, "burst": 10}
    basic = {"enabled": True, "username": "ann", "password": "right horse battery"}
    settings = {
        "database": {"url": database_url},
        "security": {"basic_auth": basic},
        "performance": {"rate_limit": limit},
    }
    app.extensions["extension"] = M9M(app, settings=make_settings(settings), clock=clock)
    app.extensions["m9m"].database.upgrade()
    add_routes(app)
    yield app
    settle()
    app.extensions["m9m"].database.close()


def add_routes(app: Flask) -> None:
    add = app.add_url_rule
    add("/login", "login", rate_limit("5/minute", burst=1)(lambda: "x"))
    mine = rate_limit("20/hour", key="identity")(lambda: "x")
    add("/mine", "mine", require_auth(mine))
    tenant = rate_limit("4/hour", key=lambda: request.args["tenant"])(lambda: "x")
    add("/tenant", "tenant", tenant)
    add("/computed", "computed", rate_limit(lambda: "2/hour")(lambda: "x"))
    add("/closed", "closed", require_auth(lambda: "x"))
    add("/free", "free", unlimited(lambda: "x"))
    add("/failures", "failures", rate_limit("5/hour", count=lambda _: True)(lambda: abort(404)))
    add("/trial", "trial", rate_limit("5/hour", shadow=True)(lambda: "x"))


@pytest.fixture
def run(app: Flask) -> Run:
    """Return a function that runs a command and hands back what it printed."""

    def invoke(*arguments: str, code: int = 0) -> Result:
        result = app.test_cli_runner().invoke(commands, arguments)
        assert result.exit_code == code, result.output
        return result

    return invoke


def rows(result: Result) -> dict[str, dict[str, Any]]:
    return {row["limit"]: row for row in json.loads(result.stdout)}


def test_show_tells_what_is_left_of_every_limit_that_counts_an_address(
    app: Flask, run: Run
) -> None:
    client = app.test_client()
    for path in ("/login", "/computed", "/mine"):
        client.get(path)
    shown = rows(run("limits", "show", "127.0.0.1", "-o", "json"))
    assert shown["default"] == {
        "limit": "default",
        "remaining": 7,
        "burst": 10,
        "full_in_seconds": 3,
        "client": "127.0.0.1",
    }
    assert (shown["login"]["remaining"], shown["login"]["full_in_seconds"]) == (0, 12)
    assert shown["computed"]["remaining"] == 1
    assert shown["attempts-address"]["remaining"] == shown["attempts-address"]["burst"]
    assert {"attempts-forged", "mine", "tenant", "failures", "trial"} <= set(shown)
    assert "attempts-account" not in shown
    table = run("limits", "show", "127.0.0.1", "--limit", "login").stdout.splitlines()
    assert table[0].split() == ["LIMIT", "REMAINING", "BURST", "FULL_IN_SECONDS", "CLIENT"]
    assert table[1].split() == ["login", "0", "1", "12", "127.0.0.1"]
    assert len(table) == 2
    assert yaml.safe_load(run("limits", "show", "127.0.0.1", "-o", "yaml").stdout)


def test_an_address_is_written_in_any_way_in_which_requests_come(app: Flask, run: Run) -> None:
    client = app.test_client()
    client.get("/login", environ_base={"REMOTE_ADDR": "2001:db8::1"})
    client.get("/login", environ_base={"REMOTE_ADDR": "192.0.2.1"})
    for text in ("2001:db8::1", "2001:DB8:0:0:ffff::9", "::ffff:192.0.2.1", "192.0.2.1"):
        shown = rows(run("limits", "show", text, "--limit", "login", "-o", "json"))
        assert shown["login"]["remaining"] == 0, text
    other = rows(run("limits", "show", "2001:db8:0:1::1", "--limit", "login", "-o", "json"))
    assert other["login"]["remaining"] == 1


def test_identities_tenants_accounts_and_api_keys_can_be_asked_for(app: Flask, run: Run) -> None:
    client_as(app, "ann").get("/mine")
    client = app.test_client()
    client.get("/tenant?tenant=" + "t" * 100)
    client.get("/closed", auth=("Mallory", "wrong"))
    api_keys = app.extensions["m9m"].identities.api_keys
    key, text = api_keys.create("ci", "bob", rate_limit="3/hour")
    free, _ = api_keys.create("free", "bob")
    client.get("/closed", headers={"X-API-Key": text})
    left = {
        "identity:ann": ("mine", 19),
        "custom:" + "t" * 100: ("tenant", 3),
        "account:mallory": ("attempts-account", 9),
        f"key:{key.id}": ("api-key", 2),
    }
    for asked, (name, remaining) in left.items():
        shown = rows(run("limits", "show", asked, "-o", "json"))
        assert shown[name]["remaining"] == remaining, asked
    assert "no rate limit of its own" in run("limits", "show", f"key:{free.id}", code=1).stderr
    assert "no API key has the id" in run("limits", "show", "key:other", code=1).stderr


def test_reset_fills_one_bucket_or_all(app: Flask, run: Run) -> None:
    client = app.test_client()
    for _ in range(12):
        client.get("/login")
    assert run("limits", "reset", "127.0.0.1", "--limit", "default").stdout == "reset default\n"
    assert client.get("/login").headers["RateLimit"].startswith('"default";r=9;t=1, "login";r=0')
    assert "login" in run("limits", "reset", "127.0.0.1").stdout
    assert client.get("/login").status_code == 200
    client_as(app, "ann").get("/mine")
    run("limits", "reset", "identity:ann")
    assert rows(run("limits", "show", "identity:ann", "-o", "json"))["mine"]["remaining"] == 20


def test_an_account_that_guesses_locked_is_free_again_after_a_reset(app: Flask, run: Run) -> None:
    client = app.test_client()
    right = ("ann", "right horse battery")
    for number in range(10):
        peer = {"REMOTE_ADDR": f"192.0.2.{number}"}
        assert client.get("/closed", auth=("ann", "wrong"), environ_base=peer).status_code == 401
    owner = {"REMOTE_ADDR": "198.51.100.1"}
    assert client.get("/closed", auth=right, environ_base=owner).status_code == 429
    assert run("limits", "reset", "account:ANN").stdout == "reset attempts-account\n"
    assert client.get("/closed", auth=right, environ_base=owner).status_code == 200


def test_top_lists_who_has_used_the_largest_share_first(app: Flask, run: Run) -> None:
    client = app.test_client()
    for number in range(1, 4):
        for _ in range(number):
            client.get("/free", environ_base={"REMOTE_ADDR": "192.0.2.9"})
            client.get("/computed", environ_base={"REMOTE_ADDR": f"192.0.2.{number}"})
    listed = json.loads(run("limits", "top", "-o", "json").stdout)
    shares = [row["remaining"] / row["burst"] for row in listed]
    assert shares == sorted(shares)
    assert {row["client"] for row in listed[:2]} == {"192.0.2.2", "192.0.2.3"}
    assert {row["limit"] for row in listed} == {"default", "computed"}
    assert len(json.loads(run("limits", "top", "-n", "2", "-o", "json").stdout)) == 2
    assert len(run("limits", "top", "-n", "2").stdout.splitlines()) == 3


def test_nothing_that_a_client_sent_reaches_the_terminal_as_it_is(app: Flask, run: Run) -> None:
    app.test_client().get("/tenant?tenant=%1b[31m%0a%c2%9b")
    table = run("limits", "top").stdout
    assert not {"\x1b", "\x9b"}.intersection(table)
    assert "custom:\\x1b[31m\\n\\x9b" in table


@pytest.mark.parametrize(
    "arguments",
    [
        ("show",),
        ("show", ""),
        ("show", "ann"),
        ("show", "identity:"),
        ("show", "account:"),
        ("show", "1.2.3.4.5"),
        ("reset", "key:"),
        ("top", "-n", "0"),
        ("top", "-o", "xml"),
    ],
)
def test_wrong_usage_exits_2(run: Run, arguments: tuple[str, ...]) -> None:
    run("limits", *arguments, code=2)


def test_an_unknown_limit_exits_1_and_says_which_there_are(run: Run) -> None:
    result = run("limits", "show", "192.0.2.1", "--limit", "other", code=1)
    assert "'other'" in result.stderr
    assert "login" in result.stderr


def test_a_store_that_fails_exits_1_with_its_reason(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreFailure("connection refused")

    for method in ("peek", "reset", "spenders"):
        monkeypatch.setattr(MemoryStore, method, fail)
    for arguments in (("show", "192.0.2.1"), ("reset", "192.0.2.1"), ("top",)):
        assert "connection refused" in run("limits", *arguments, code=1).stderr


def test_routes_tells_which_limits_count_some_answers_or_refuse_nothing(run: Run) -> None:
    listed = json.loads(run("routes", "-o", "json").stdout)
    told = {row["endpoint"]: row["limits"] for row in listed}
    assert told["free"] == ["exempt from the general limit"]
    assert told["failures"][0].endswith("counts only some responses")
    assert told["trial"][0].endswith("refuses no request (shadow)")
    assert told["computed"] == [
        "computed: computed",
        "60 per minute, burst 10 (at most 69 in any minute)",
    ]


def test_limits_in_the_memory_of_a_process_cannot_be_shown_and_that_is_said(
    project: Folder,
) -> None:
    for arguments in (("top",), ("show", "192.0.2.1"), ("reset", "192.0.2.1")):
        environ = {"M9M_PERFORMANCE_RATE_LIMIT_STORAGE": "memory"}
        result = project.m9m("limits", *arguments, **environ)
        assert result.returncode == 1
        assert result.stdout == ""
        assert "performance.rate_limit.storage: shared or redis" in result.stderr


@pytest.mark.parametrize("storage", ["shared", "redis"])
def test_another_process_shows_ranks_and_resets_what_an_app_has_counted(
    project: Folder, storage: str, redis_url: str
) -> None:
    environ = {
        "M9M_PERFORMANCE_RATE_LIMIT_ENABLED": "true",
        "M9M_PERFORMANCE_RATE_LIMIT_REQUESTS_PER_MINUTE": "1",
        "M9M_PERFORMANCE_RATE_LIMIT_STORAGE": storage,
        "M9M_JWT_SECRET": secrets.token_urlsafe(48),
    }
    if storage == "redis":
        environ["M9M_PERFORMANCE_RATE_LIMIT_REDIS_URL"] = redis_url
    else:
        environ["M9M_PERFORMANCE_RATE_LIMIT_PATH"] = str(project.path / "limits")
    ask = (
        "from app import app\n"
        "client = app.test_client()\n"
        "print(*[client.get('/nowhere').status_code for _ in range(11)])"
    )
    assert project.python(ask, **environ).split() == ["404"] * 10 + ["429"]

    def limits(*arguments: str) -> Any:
        result = project.m9m("limits", *arguments, **environ)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout) if "json" in arguments else None

    [spender] = limits("top", "-o", "json")
    shown = {row["limit"]: row for row in limits("show", "127.0.0.1", "-o", "json")}
    assert spender["limit"] == "default"
    assert spender["client"] == shown["default"]["client"]
    assert "127.0.0.1" not in json.dumps(spender)
    assert shown["default"]["remaining"] == 0
    limits("reset", "127.0.0.1")
    assert project.python(ask, **environ).split()[:10] == ["404"] * 10
