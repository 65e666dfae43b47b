"""Tables and reports on terminals, and in pipes."""

from __future__ import annotations

import json
import re

import pytest

from .conftest import Folder
from .terminal import on_terminal, without_colours

APP = """\
from flask import Flask
from flask_m9m import M9M, public, require_auth, rate_limit

app = Flask(__name__, static_folder=None)
M9M(app)

@app.get("/a/rather/long/path/<int:number>/comments")
@require_auth(scopes=["comments:read", "comments:write"])
@rate_limit("5/minute; 100/hour")
def comments_of_a_very_long_name(number): return "a"

@app.get("/status")
@public
def status(): return "ok"
"""


@pytest.fixture
def routed(project: Folder) -> Folder:
    project.write("app.py", APP)
    return project


def words(text: str) -> str:
    """Return a text's letters and digits alone, which no folding changes the order of."""
    return re.sub(r"[^a-z0-9]", "", text)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 81, 97, 100, 120, 160, 200, 300])
def test_no_line_is_wider_than_the_terminal(routed: Folder, width: int) -> None:
    seen = without_colours(on_terminal(routed, width, "routes"))
    assert max(map(len, seen.splitlines())) <= width
    for cell in ("public", "authenticated"):
        assert words(cell) in words(seen)


@pytest.mark.parametrize("width", [105, 120, 300])
def test_no_cell_loses_a_word_where_it_is_folded(routed: Folder, width: int) -> None:
    seen = without_colours(on_terminal(routed, width, "routes", "--endpoint", "comments*"))
    (header, *lines) = seen.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+( BY)?", header)]
    columns = {
        header[a:b].strip(): "".join(line[a:b] for line in lines)
        for a, b in zip(starts, [*starts[1:], None], strict=True)
    }
    assert words(columns["ROUTE"]) == words("/a/rather/long/path/<int:number>/comments")
    assert words(columns["ENDPOINT"]) == words("comments_of_a_very_long_name")
    assert words(columns["NEEDS"]) == words("scope comments:read, scope comments:write")
    limits = (
        "5 per minute, burst 5 (at most 9 in any minute): view; "
        "100 per hour, burst 100 (at most 199 in any hour): view"
    )
    assert words(limits) in words(columns["LIMITS"])


def test_a_terminal_that_is_very_narrow_gets_a_block_for_each_row(routed: Folder) -> None:
    seen = without_colours(on_terminal(routed, 30, "routes", "--endpoint", "status"))
    assert [line.rstrip() for line in seen.splitlines()[:3]] == [
        "route   /status",
        "method  GET",
        "access  public",
    ]


def test_wide_has_every_column_on_one_line(routed: Folder) -> None:
    seen = without_colours(on_terminal(routed, 60, "routes", "--wide"))
    assert len(seen.splitlines()) == 3
    assert seen.splitlines()[0].endswith("HEADERS BY")


def test_a_pipe_gets_every_column_on_one_line_without_colours(routed: Folder) -> None:
    said = routed.m9m("routes").stdout
    assert len(said.splitlines()) == 3
    assert said.splitlines()[0].endswith("HEADERS BY")
    assert "\x1b" not in routed.m9m("routes", FORCE_COLOR="1").stdout


def test_what_was_left_out_is_said(routed: Folder) -> None:
    assert "\x1b[32mauthenticated" in on_terminal(routed, 80, "routes")
    said = routed.run("m9m", "routes").stderr
    assert "left out" not in said


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_are_switched_off(routed: Folder, environ: dict[str, str]) -> None:
    for command in ("routes", "doctor"):
        assert "\x1b[3" not in on_terminal(routed, 100, command, **environ)
    assert "\x1b[33m" in on_terminal(routed, 100, "doctor")


def test_the_doctor_wraps_below_its_text(routed: Folder) -> None:
    seen = without_colours(on_terminal(routed, 60, "doctor"))
    assert max(len(line) for line in seen.splitlines() if line.startswith(" " * 10)) <= 60
    assert re.search(r"\n {10}why: \S.*\n {15}\S", seen)
    assert without_colours(on_terminal(routed, 60, "doctor", "--wide")) == (
        routed.run("m9m", "doctor").stdout
    )


def test_text_of_others_neither_colours_nor_breaks_a_table(kept: Folder) -> None:
    kept.run("m9m", "apikey", "create", "[red]x[/red] :smile:", "--owner", "[bold]ada")
    seen = without_colours(on_terminal(kept, 200, "apikey", "list"))
    assert "[red]x[/red] :smile:" in seen
    assert "[bold]ada" in seen
    assert "\x1b" not in seen


def test_routes_without_a_credential_are_listed_alone(routed: Folder) -> None:
    rows = json.loads(routed.m9m("routes", "--public", "-o", "json").stdout)
    assert [row["endpoint"] for row in rows] == ["status"]
    rows = json.loads(routed.m9m("routes", "--endpoint", "com*", "-o", "json").stdout)
    assert [row["endpoint"] for row in rows] == ["comments_of_a_very_long_name"]
    failed = routed.m9m("routes", "--endpoint", "com*", "--fail-on", "public")
    assert failed.returncode == 1
    assert "public: GET /status (status)" in failed.stderr


def test_durations_are_shown_as_they_are_written(routed: Folder) -> None:
    said = routed.m9m("config", "show").stdout
    shown = dict(re.findall(r"^(\S+) .* (\S+)$", said, re.MULTILINE))
    assert shown["security.jwt.expiration"] == "24h"
    assert shown["security.jwt.refresh_max_age"] == "30d"
    assert shown["audit.retention"] == "90d"
    assert shown["security.revocation.propagation"] == "1s"
    assert shown["server.limits.max_headers"] == "100"
    assert json.loads(routed.m9m("config", "get", "audit.retention").stdout) == 7_776_000
