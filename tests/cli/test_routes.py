"""`flask m9m routes`, run as a user runs it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.cli.conftest import Folder

APP = """\
from flask import Blueprint, Flask
from flask.views import MethodView
from flask_m9m import (M9M, cors, public, rate_limit, require_auth, require_signed_url,
                       security_headers, unlimited)

app = Flask(__name__)
m9m = M9M(app)
api = Blueprint("api", __name__)

@api.get("/api/plain")
def plain(): return "plain"

@api.get("/api/own")
@require_auth(scopes="a", schemes="bearer")
@rate_limit("5/minute")
@cors(allowed_origins=["https://own.example.com"])
@security_headers(preset="web")
def own(): return "own"

class Base(MethodView):
    decorators = [security_headers(preset="web")]

@rate_limit("7/minute")
class Item(Base):
    @require_auth
    def delete(self): return "item"
    @public
    def get(self): return "item"

api.add_url_rule("/api/item", view_func=Item.as_view("item"))
m9m.protect(api, require_auth(roles="admin"), rate_limit("9/minute", shadow=True))
m9m.protect("api.*", cors(allowed_origins=["https://pattern.example.com"]))
app.register_blueprint(api)

@app.get("/health")
@public
@unlimited
def health(): return "ok"

@app.get("/maybe")
@require_auth(optional=True)
def maybe(): return "maybe"

@app.get("/signed")
@require_signed_url
def signed(): return "signed"

app.add_url_rule("/probe", "probe", public(lambda: ""), methods=["HEAD"])
"""
OPEN = ["GET /api/item (api.item)", "GET /health (health)", "GET /maybe (maybe)"]
GENERAL = "60 per minute, burst 10 (at most 69 in any minute)"


@pytest.fixture
def routed(project: Folder) -> Folder:
    project.write("app.py", APP)
    project.write("config.yaml", "performance: {rate_limit: {enabled: true}}")
    return project


def rows_of(folder: Folder, *arguments: str) -> dict[tuple[str, str], dict[str, Any]]:
    shown = folder.m9m("routes", "-o", "json", *arguments)
    assert shown.returncode == 0, shown.stderr
    return {(row["method"], row["route"]): row for row in json.loads(shown.stdout)}


def test_each_row_says_where_access_limits_cors_and_headers_come_from(routed: Folder) -> None:
    rows = rows_of(routed)
    shadow = "9 per minute, burst 9 (at most 17 in any minute), refuses no request (shadow)"
    own = rows["GET", "/api/own"]
    assert own["decided by"] == "view, blueprint api"
    assert own["cors by"] == own["headers by"] == "view"
    assert own["schemes"] == ["bearer"]
    assert own["cors"] == ["https://own.example.com"]
    assert own["limits"] == ["5 per minute, burst 5 (at most 9 in any minute)", shadow, GENERAL]
    assert own["limits by"] == ["view", "blueprint api", "settings"]
    plain = rows["GET", "/api/plain"]
    assert plain["decided by"] == "blueprint api"
    assert plain["needs"] == ["role admin"]
    assert plain["schemes"] == ["bearer", "api_key"]
    assert (plain["cors by"], plain["headers by"]) == ("pattern api.*", "settings")
    assert plain["cors"] == ["https://pattern.example.com"]
    assert plain["limits by"] == ["blueprint api", "settings"]
    item = rows["DELETE", "/api/item"]
    assert item["access"] == "authenticated"
    assert item["decided by"] == "method delete, blueprint api"
    assert item["needs"] == ["role admin"]
    assert rows["GET", "/api/item"]["decided by"] == "method get"
    assert item["limits by"] == ["class Item", "blueprint api", "settings"]
    assert item["headers by"] == "view"
    health = rows["GET", "/health"]
    assert (health["limits"], health["limits by"]) == (["exempt from the general limit"], ["view"])
    assert (health["cors by"], health["headers by"]) == ("settings", "settings")
    assert rows["HEAD", "/probe"]["access"] == "public"
    assert ("HEAD", "/health") not in rows


def test_the_table_has_each_limit_beside_where_it_is_said(routed: Folder) -> None:
    header, *lines = routed.m9m("routes").stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("/api/own "))
    assert "(at most 9 in any minute): view; 9 per minute" in line
    assert "refuses no request (shadow): blueprint api; 60 per" in line
    assert "LIMITS BY" not in header
    (line,) = (line for line in lines if line.startswith("/maybe "))
    assert re.split("  +", line)[-4:] == [f"{GENERAL}: settings", "-", "settings", "settings"]


def test_a_general_limit_that_only_reports_says_so(routed: Folder) -> None:
    routed.write("config.yaml", "performance: {rate_limit: {enabled: true, shadow: true}}")
    assert rows_of(routed)["GET", "/maybe"]["limits"] == [
        "60 per minute, burst 10 (at most 69 in any minute), refuses no request (shadow)"
    ]


def test_it_fails_on_every_route_that_anybody_reaches(routed: Folder) -> None:
    failing = routed.m9m("routes", "--fail-on", "public")
    assert failing.returncode == 1
    *named, last = failing.stderr.splitlines()
    assert named == [f"public: {one}" for one in (*OPEN, "HEAD /probe (probe)")]
    assert last.startswith("4 public: ")
    assert "/static" in failing.stdout


def test_what_is_known_to_be_public_can_be_allowed(routed: Folder) -> None:
    arguments = ["routes", "--fail-on", "public", "--allow", "health", "--allow", "api.i*"]
    failing = routed.m9m(*arguments)
    assert failing.returncode == 1
    assert "health" not in failing.stderr
    assert "public: GET /maybe (maybe)" in failing.stderr
    assert routed.m9m(*arguments, "--allow", "maybe", "--allow", "probe").returncode == 0
    wrong = routed.m9m("routes", "--allow", "health", "--fail-on", "undecided")
    assert wrong.returncode == 2
    assert "--fail-on public" in wrong.stderr


def test_the_routes_that_settings_switch_on_need_no_allowance(routed: Folder) -> None:
    with (routed.path / ".env").open("a") as dotenv:
        dotenv.write("M9M_API_ENABLED=true\n")
    failing = routed.m9m("routes", "--fail-on", "public")
    assert failing.stderr.splitlines()[-1].startswith("4 public: ")
    assert "/auth/login" in failing.stdout


def test_it_can_fail_on_both_and_names_which(project: Folder) -> None:
    failing = project.m9m("routes", "--fail-on", "undecided", "--fail-on", "public")
    assert failing.returncode == 1
    assert failing.stderr.splitlines() == [
        "undecided: GET /undecided (undecided)",
        "1 undecided: mark these routes with @require_auth or @public",
        "public: POST /login (login)",
        "1 public: these routes need no credential; --allow those that are meant to be public",
    ]
    project.write("config.yaml", "security: {default_access: public}")
    failing = project.m9m("routes", "--fail-on", "public", "--allow", "login")
    assert "public: GET /undecided (undecided)" in failing.stderr


def test_a_route_cannot_write_to_the_terminal(folder: Folder) -> None:
    folder.write(
        "app.py",
        "from flask import Flask\nfrom flask_m9m import M9M\napp = Flask(__name__)\nM9M(app)\n"
        "app.add_url_rule('/\\x1b[31m', 'x\\x9b', lambda: '')\n",
    )
    failing = folder.m9m("routes", "--fail-on", "public")
    assert failing.returncode == 1
    assert not [one for one in failing.stderr if not one.isprintable() and one != "\n"]
