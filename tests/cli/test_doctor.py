"""`flask m9m doctor`, run as a user runs it."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Folder
from tests.wsgi.server.certificates import make_certificate

ROOT = Path(__file__).parents[2]

APP = """\
from flask import Flask
from flask_m9m import M9M, public, require_auth

app = Flask(__name__)
m9m = M9M(app)

@app.get("/items")
@require_auth(scopes="items:read")
def items(): return []
"""
OPEN = '\n@app.post("/items")\ndef add(): return "", 204\n'


def examined(folder: Folder, *arguments: str, **environ: str) -> tuple[int, dict[str, Any]]:
    result = folder.m9m("doctor", "-o", "json", *arguments, **environ)
    return result.returncode, json.loads(result.stdout)


def ids(document: dict[str, Any], *severities: str) -> set[str]:
    found = document["findings"]
    return {
        finding["id"] for finding in found if not severities or finding["severity"] in severities
    }


def at_least_medium(document: dict[str, Any]) -> set[str]:
    return ids(document, "medium", "high", "critical")


def test_following_the_printed_commands_leads_to_a_clean_report(
    folder: Folder,
) -> None:
    folder.write("app.py", APP)
    code, before = examined(folder)
    assert code == 1
    assert any("flask m9m init" in finding["fix"] for finding in before["findings"])
    made = folder.m9m("init")
    assert "flask m9m doctor" in made.stdout
    result = folder.m9m("doctor")
    assert (result.returncode, result.stdout) == (0, "nothing found: score 100 of 100\n")


def test_the_readmes_app_with_the_files_of_init_has_no_findings(folder: Folder) -> None:
    readme = (ROOT / "README.md").read_text()
    [app, *_] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    folder.write("app.py", app)
    folder.m9m("init")
    assert examined(folder)[1]["findings"] == []


def test_the_readmes_production_settings_have_no_findings_of_medium_or_above(
    folder: Folder,
) -> None:
    readme = (ROOT / "README.md").read_text()
    [app, *_] = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    [config, *_] = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    folder.write("app.py", app)
    folder.m9m("init")
    folder.write("config.yaml", config)
    code, document = examined(folder, "--level", "medium")
    assert (code, at_least_medium(document)) == (0, set())
    pair = make_certificate(folder.path)
    code, document = examined(
        folder,
        "--level",
        "medium",
        M9M_HOST="0.0.0.0",
        M9M_PORT="443",
        M9M_SERVER_TLS_ENABLED="true",
        M9M_SERVER_TLS_CERT_FILE=str(pair.certificate),
        M9M_SERVER_TLS_KEY_FILE=str(pair.key),
    )
    assert (code, at_least_medium(document)) == (0, set())


def test_the_example_has_no_findings_of_medium_or_above(folder: Folder) -> None:
    environ = {
        "M9M_JWT_SECRET": secrets.token_urlsafe(48),
        "M9M_ENCRYPTION_KEY": secrets.token_hex(32),
        "FLASK_APP": str(ROOT / "examples" / "workflows_api" / "app.py"),
    }
    code, document = examined(folder, "--level", "medium", **environ)
    assert (code, at_least_medium(document)) == (0, set())


def test_the_document_has_the_findings_and_their_points(folder: Folder) -> None:
    folder.write("app.py", APP + OPEN)
    folder.m9m("init")
    folder.write("config.yaml", "security: {lockout: {enabled: false}}")
    code, document = examined(folder)
    assert code == 1
    assert set(document) == {"findings", "score", "lost", "ignored"}
    assert ids(document) == {"lockout-off", "limiter-off", "route-changes-unprotected"}
    assert all(
        set(finding) == {"id", "severity", "where", "why", "fix"}
        for finding in document["findings"]
    )
    assert document["lost"] == [
        {"id": "lockout-off", "where": "security.lockout.enabled (config.yaml)", "points": 15},
        {"id": "route-changes-unprotected", "where": "POST /items (add)", "points": 15},
        {"id": "limiter-off", "where": "performance.rate_limit.enabled", "points": 5},
    ]
    assert document["score"] == 100 - 35
    assert examined(folder)[1] == document
    printed = folder.m9m("doctor", "-o", "yaml")
    assert yaml.safe_load(printed.stdout) == document


def test_the_table_has_the_reason_and_the_fix_of_each(folder: Folder) -> None:
    folder.write("app.py", APP + OPEN)
    folder.m9m("init")
    folder.write("config.yaml", "performance: {rate_limit: {enabled: true}}")
    result = folder.m9m("doctor")
    assert result.returncode == 1
    assert re.fullmatch(
        r"high +route-changes-unprotected +POST /items \(add\)\n"
        r" +why: .*ASVS 8\.2\.1.*\n"
        r" +fix: put @require_auth or @public \(.*\) on the view of add; .*\n\n"
        r"YAML in a fix: if config.yaml has its section already, add to that section\n\n"
        r"score: 85 of 100; lost:\n"
        r" +-15  route-changes-unprotected: POST /items \(add\)\n",
        result.stdout,
    )


def test_the_level_changes_only_the_exit_code(folder: Folder) -> None:
    folder.write("app.py", APP)
    folder.m9m("init")
    folder.write("config.yaml", "performance: {rate_limit: {enabled: true, shadow: true}}")
    assert examined(folder)[0] == 1
    code, document = examined(folder, "--level", "medium")
    assert (code, ids(document)) == (0, {"limiter-shadow"})


def test_ignored_findings_are_named_and_do_not_count(folder: Folder) -> None:
    folder.write("app.py", APP)
    folder.m9m("init")
    folder.write("config.yaml", "performance: {rate_limit: {enabled: true, shadow: true}}")
    code, document = examined(folder, "--ignore", "limiter-shadow", "--ignore", "tls-off")
    assert code == 0
    assert document == {"findings": [], "score": 100, "lost": [], "ignored": ["limiter-shadow"]}
    result = folder.m9m("doctor", "--ignore", "limiter-shadow")
    assert "ignored: limiter-shadow" in result.stdout
    assert result.stderr == "settings read from config.yaml, .env\n"


def test_it_prints_that_no_file_was_read(folder: Folder) -> None:
    folder.write("app.py", APP)
    said = folder.m9m("doctor").stderr
    assert said.startswith("no settings file was found: looked for config.yaml, config.yml and")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("limiter-of", "limiter-off"),
        ("start-refused", "cannot be ignored"),
        ("", "unknown finding id ''"),
    ],
)
def test_an_id_that_cannot_be_ignored_is_wrong_usage(folder: Folder, given: str, said: str) -> None:
    folder.write("app.py", APP)
    result = folder.m9m("doctor", "--ignore", given)
    assert result.returncode == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    "config",
    [
        "security: {jwt: {secret: changeme-changeme-changeme-changeme}}",
        "security: {jwt: {secret: short}}",
        "security: {cors: {allowed_origins: ['*'], allow_credentials: true}, jwt: {enabled: true}}",
    ],
)
def test_settings_that_stop_the_start_are_critical(folder: Folder, config: str) -> None:
    folder.write("app.py", APP)
    folder.write("config.yaml", config)
    code, document = examined(folder, "--level", "critical")
    assert code == 1
    assert ids(document, "critical") == {"start-refused"}
    assert all(finding["where"].startswith("security.") for finding in document["findings"])
    table = folder.m9m("doctor")
    assert table.returncode == 1
    assert table.stdout.startswith("critical")
    for output in (json.dumps(document), table.stdout):
        assert "changeme-changeme" not in output


def test_a_secret_equal_to_the_apps_secret_key_stops_the_start(folder: Folder) -> None:
    secret = secrets.token_urlsafe(48)
    folder.write("app.py", APP.replace("m9m =", "app.secret_key = os.environ['KEY']\nm9m ="))
    folder.write("app.py", "import os\n" + (folder.path / "app.py").read_text())
    code, document = examined(folder, M9M_JWT_SECRET=secret, KEY=secret)
    assert code == 1
    [refused] = document["findings"]
    assert (refused["id"], refused["where"]) == ("start-refused", "security.jwt.secret")
    assert "app.secret_key" in refused["why"]
    assert secret not in json.dumps(document)


def test_an_app_that_cannot_be_loaded_is_a_finding(folder: Folder) -> None:
    folder.write("app.py", APP + "raise RuntimeError('no such table: \\x1b[2J')\n")
    code, document = examined(folder)
    assert code == 1
    assert "app-not-loaded" in ids(document, "critical")
    [finding] = [one for one in document["findings"] if one["id"] == "app-not-loaded"]
    assert "RuntimeError: no such table: " in finding["why"]
    assert finding["why"].isprintable()


def test_a_folder_without_an_app_is_wrong_usage(folder: Folder) -> None:
    result = folder.m9m("doctor")
    assert result.returncode == 2
    assert "Could not locate a Flask application" in result.stderr


def test_control_characters_are_not_printed(folder: Folder) -> None:
    odd = '\napp.add_url_rule("/\\x1b[2J", "odd\\x9b", lambda: "", methods=["POST"])\n'
    folder.write("app.py", APP + odd)
    folder.m9m("init")
    folder.write("config.yaml", "performance: {rate_limit: {enabled: true}}")
    for output in ("table", "json", "yaml"):
        printed = folder.m9m("doctor", "-o", output).stdout
        assert "route-changes-unprotected" in printed
        assert not [char for char in printed if not char.isprintable() and char != "\n"]


def test_the_table_in_the_documentation_matches_the_code() -> None:
    from flask_m9m.cli.doctor.examination import KINDS

    rows = re.findall(r"^\| `([a-z].*)$", (ROOT / "docs" / "doctor.md").read_text(), re.MULTILINE)
    expected = [
        f"{kind.id}` | {kind.severity.value} | {_cell(kind.what)} | {_cell(kind.why)} "
        f"| {_cell(kind.fix)} |"
        for kind in KINDS
    ]
    assert rows == expected


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*")
