"""`flask m9m …`, run as a user runs it: a process of its own in an empty folder."""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
import sys
import time
import urllib.request

import jsonschema
import jwt
import pytest
import yaml

from tests.cli.conftest import APP, SECRET, Folder


def test_init_writes_secrets_for_their_owner_alone_and_a_config_that_is_valid(
    folder: Folder,
) -> None:
    folder.write(".gitignore", "*.pyc")
    result = folder.m9m("init")
    assert result.returncode == 0, result.stderr
    dotenv = folder.path / ".env"
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600
    secrets = dict(line.split("=", 1) for line in dotenv.read_text().splitlines())
    assert set(secrets) == {"M9M_JWT_SECRET", "M9M_ENCRYPTION_KEY"}
    assert len(set(secrets.values())) == 2
    assert not [secret for secret in secrets.values() if secret in result.stdout + result.stderr]
    assert (folder.path / ".gitignore").read_text() == "*.pyc\n.env\ninstance/\n"
    assert folder.m9m("config", "validate").returncode == 0
    assert folder.m9m("config", "get", "performance.rate_limit.enabled").stdout.strip() == "true"


def test_init_overwrites_nothing_and_says_what_is_missing(folder: Folder) -> None:
    folder.write(".env", "MINE=1\nM9M_ENCRYPTION_KEY=x")
    folder.write("config.yaml", "security: {}\n")
    result = folder.m9m("init")
    assert result.returncode == 0
    assert ".env exists and was not changed\n" in result.stdout
    assert "flask m9m secret --bytes 64 --add M9M_JWT_SECRET\n" in result.stdout
    assert "no M9M_ENCRYPTION_KEY" not in result.stdout
    assert (folder.path / ".env").read_text() == "MINE=1\nM9M_ENCRYPTION_KEY=x"
    assert (folder.path / "config.yaml").read_text() == "security: {}\n"


def test_init_follows_no_link(folder: Folder) -> None:
    target = folder.path / "elsewhere"
    (folder.path / ".env").symlink_to(target)
    assert "was not changed" in folder.m9m("init").stdout
    assert not target.exists()


def test_a_secret_is_added_to_dotenv_on_a_line_of_its_own_and_replaces_none(
    folder: Folder,
) -> None:
    assert folder.m9m("secret", "--add", "ONE").stdout == "added ONE to .env\n"
    dotenv = folder.path / ".env"
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600
    dotenv.write_text("OTHER=1")  # a line that does not end
    for name in ("ONE", "TWO"):
        assert folder.m9m("secret", "--bytes", "64", "--add", name).returncode == 0
    before = dotenv.read_text()
    found = dict(line.split("=", 1) for line in before.splitlines())
    assert list(found) == ["OTHER", "ONE", "TWO"]
    assert (found["OTHER"], len(found["ONE"])) == ("1", 88)
    result = folder.m9m("secret", "--add", "ONE")
    assert (result.returncode, result.stdout) == (1, "")
    assert "remove that line first" in result.stderr
    assert folder.m9m("secret", "--add", "A=1\nB").returncode == 2
    assert dotenv.read_text() == before


def test_a_secret_is_added_through_no_link(folder: Folder) -> None:
    target = folder.path / "elsewhere"
    target.write_text("")
    (folder.path / ".env").symlink_to(target)
    result = folder.m9m("secret", "--add", "ONE")
    assert (result.returncode, result.stderr.startswith("Error: .env: ")) == (1, True)
    assert target.read_text() == ""


def test_secret_prints_another_one_each_time(folder: Folder) -> None:
    one, other = (folder.m9m("secret").stdout.strip() for _ in range(2))
    assert one != other
    assert len(one) == 44


def test_config_show_names_the_source_of_each_value_and_masks_secrets(project: Folder) -> None:
    result = project.m9m("config", "show", "-o", "json", M9M_SECURITY_CORS_MAX_AGE="60")
    shown = json.loads(result.stdout)
    assert shown["security.cors.max_age"]["value"] == 60
    assert "M9M_SECURITY_CORS_MAX_AGE" in shown["security.cors.max_age"]["source"]
    assert "config.yaml" in shown["security.default_access"]["source"]
    assert ".env" in shown["security.jwt.secret"]["source"]
    assert shown["server.port"] == {"value": 8080, "source": "default"}
    table = project.m9m("config", "show").stdout
    assert SECRET not in result.stdout + table
    assert re.search(r"^security\.default_access +config\.yaml +authenticated", table, re.MULTILINE)


def test_config_validate_lists_every_problem_without_a_traceback(project: Folder) -> None:
    project.write("config.yaml", "security: {jwt: {secert: x, expiration: soon}, cors: 7}\n")
    result = project.m9m("config", "validate", M9M_SECURITY_CORS_MAX_AEG="1")
    assert result.returncode == 1
    printed = result.stdout + result.stderr
    for named in ("security.jwt.secert", "secret", "security.jwt.expiration", "security.cors"):
        assert named in printed
    assert "M9M_SECURITY_CORS_MAX_AGE" in printed


def test_config_get_of_an_unknown_path_fails_and_names_the_nearest(project: Folder) -> None:
    result = project.m9m("config", "get", "security.cors.max_aeg")
    assert result.returncode == 1
    assert "security.cors.max_age" in result.stderr


def test_config_get_never_prints_a_secret(project: Folder) -> None:
    assert SECRET not in project.m9m("config", "get", "security.jwt.secret").stdout


def test_config_schema_accepts_a_config_and_refuses_a_typo(project: Folder) -> None:
    schema = json.loads(project.m9m("config", "schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    config = yaml.safe_load((project.path / "config.yaml").read_text())
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"security": {"cros": {}}}, schema)


def test_a_token_is_issued_and_inspected_through_standard_input(project: Folder) -> None:
    issued = project.m9m(
        "token", "issue", "ann", "--scope", "a b", "--role", "r", "--expires", "1h"
    )
    assert issued.returncode == 0, issued.stderr
    token = issued.stdout.strip()
    shown = project.m9m("token", "inspect", "-", "-o", "json", stdin=token)
    document = json.loads(shown.stdout)
    assert shown.returncode == 0
    assert document["valid"] is True
    assert document["claims"]["scope"] == "a b"
    assert document["claims"]["exp"] - document["claims"]["iat"] == 3600
    forged = project.m9m("token", "inspect", "-", "-o", "json", stdin=token[:-4] + "AAAA")
    assert forged.returncode == 1
    assert json.loads(forged.stdout)["valid"] is False
    assert project.m9m("token", "inspect", "-", stdin="garbage").returncode == 1


@pytest.mark.parametrize("expires", ["soon", "-1h", "0", "9" * 400])
def test_a_life_that_cannot_be_is_refused(project: Folder, expires: str) -> None:
    result = project.m9m("token", "issue", "ann", f"--expires={expires}")
    assert result.returncode == 1
    assert result.stderr.startswith("Error:")


def test_without_a_secret_issue_says_what_to_do(folder: Folder) -> None:
    folder.write("app.py", APP)
    result = folder.m9m("token", "issue", "ann")
    assert result.returncode == 1
    assert "flask m9m init" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("https://app.example.com", "GET", "/items"), 0, "Access-Control-Allow-Origin"),
        (("https://a.b.example.net", "GET", "/items"), 0, "https://*.example.net"),
        (("https://example.net", "GET", "/items"), 1, "refused"),
        (("https://app.example.com.evil.net", "GET", "/items"), 1, "refused"),
        (("https://app.example.com", "DELETE", "/items"), 1, "DELETE"),
        (("https://app.example.com", "GET", "/items", "--header", "x-mine"), 1, "x-mine"),
        (("https://app.example.com", "GET", "/nowhere"), 0, "404"),
    ],
)
def test_cors_check_answers_as_a_browser_would_see_it(
    project: Folder, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = project.m9m("cors", "check", *arguments)
    assert result.returncode == code, result.stderr
    assert said in result.stdout


def test_routes_shows_what_each_demands_and_fails_on_undecided_ones(project: Folder) -> None:
    result = project.m9m("routes", "-o", "json")
    rows = {row["endpoint"]: row for row in json.loads(result.stdout)}
    assert result.returncode == 0
    assert rows["items"]["access"] == "authenticated"
    assert rows["items"]["needs"] == ["scope items:read"]
    assert rows["login"]["access"] == "public"
    assert rows["login"]["limits"] == ["5 per minute, burst 1 (at most 5 in any minute)"]
    assert rows["export"]["access"] == "signed"
    assert rows["export"]["needs"] == ["a URL signed for export"]
    assert rows["report"]["access"] == "authenticated"
    assert rows["report"]["needs"] == ["a signed URL"]
    assert rows["undecided"]["decided by"] == "settings"
    assert "https://app.example.com" in rows["items"]["cors"]
    failing = project.m9m("routes", "--fail-on", "undecided")
    assert failing.returncode == 1
    assert "ENDPOINT" in failing.stdout


def test_wrong_usage_exits_2(project: Folder) -> None:
    assert project.m9m("token", "issue").returncode == 2
    assert project.m9m("cors", "check", "x").returncode == 2
    assert project.m9m("nonsense").returncode == 2
    assert project.m9m("serve", "--port", "0").returncode == 2


def test_an_app_without_m9m_is_told_so(folder: Folder) -> None:
    folder.write("app.py", "from flask import Flask\napp = Flask(__name__)\n")
    result = folder.m9m("routes")
    assert result.returncode == 1
    assert "M9M(app)" in result.stderr


def test_a_closed_pipe_ends_quietly(project: Folder) -> None:
    command = f"{sys.executable} -m flask m9m config show | head -n 1"
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=project.path,
        env=project.environ(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com", ""])
def test_the_development_server_stays_on_loopback(project: Folder, host: str) -> None:
    result = project.m9m("serve", "--dev", f"--host={host}", M9M_HOST=host or "0.0.0.0")
    assert result.returncode == 1
    assert ("loopback" if host else "server.host") in result.stderr


def test_the_development_server_answers_any_origin_and_keeps_its_secret(folder: Folder) -> None:
    folder.write("app.py", APP)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "flask",
            "m9m",
            "serve",
            "--dev",
            "--no-reload",
            "--port",
            str(port),
        ],
        cwd=folder.path,
        env=folder.environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        token = ""
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        issued = folder.m9m("token", "issue", "ann", "--scope", "items:read", M9M_DEV_MODE="true")
        token = issued.stdout.strip()
        request = urllib.request.Request(
            f"{url}/items",
            headers={"Authorization": f"Bearer {token}", "Origin": "https://any.example"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.read() == b"items"
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "Strict-Transport-Security" not in answer.headers
    finally:
        server.terminate()
        server.wait(10)
    secret = folder.path / "instance" / "m9m" / "dev-secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_init_survives_a_gitignore_that_is_none(folder: Folder) -> None:
    (folder.path / "target").write_text("")
    (folder.path / ".gitignore").symlink_to(folder.path / "target")
    result = folder.m9m("init")
    assert result.returncode == 0
    assert "add .env and instance/ to it yourself" in result.stderr
    assert (folder.path / "config.yaml").exists()
    assert (folder.path / "target").read_text() == ""


def test_init_reads_a_gitignore_of_any_bytes(folder: Folder) -> None:
    (folder.path / ".gitignore").write_bytes(b"\xff\xfe")
    assert folder.m9m("init").returncode == 0
    assert (folder.path / ".gitignore").read_bytes() == b"\xff\xfe\n.env\ninstance/\n"


def test_init_adds_to_a_gitignore_only_what_is_not_there(folder: Folder) -> None:
    folder.write(".gitignore", "/instance\n")
    assert "added .env to .gitignore" in folder.m9m("init").stdout
    assert (folder.path / ".gitignore").read_text() == "/instance\n.env\n"


def test_inspect_of_anything_but_a_token_says_so(project: Folder) -> None:
    (project.path / "noise").write_bytes(bytes(range(256)))
    result = project.m9m("token", "inspect", "noise")
    assert (result.returncode, result.stderr) == (1, "Error: the text is not a JWT\n")


def test_nothing_that_a_terminal_obeys_is_printed(project: Folder) -> None:
    claims = {"sub": "a", "exp": 9e9, "x": "\x1b[31m\x9b31m\u202e\x7f"}
    token = jwt.encode(claims, SECRET)
    for output in ("json", "yaml"):
        shown = project.m9m("token", "inspect", "-", "-o", output, stdin=token).stdout
        assert not [one for one in shown if not one.isprintable() and one != "\n"]
        document = json.loads(shown) if output == "json" else yaml.safe_load(shown)
        assert document["claims"]["x"] == claims["x"]


@pytest.mark.parametrize("path", ["http://[::1", "//["])
def test_cors_check_of_no_path_says_so(project: Folder, path: str) -> None:
    result = project.m9m("cors", "check", "https://app.example.com", "GET", path)
    assert result.returncode == 1
    assert "is not a path" in result.stderr


@pytest.mark.parametrize(
    ("app", "named"),
    [
        ("app.secret_key = m9m.settings_secret", "app.secret_key"),
        (
            "try: M9M(Flask('b'), settings={'server': {'port': 0}})\n"
            "except Exception as e: raise RuntimeError('start') from e",
            "server.port",
        ),
    ],
)
def test_validate_finds_what_is_hidden_in_the_app(project: Folder, app: str, named: str) -> None:
    app = app.replace("m9m.settings_secret", repr(SECRET))
    project.write("app.py", f"{APP}\n{app}\n")
    result = project.m9m("config", "validate")
    assert result.returncode == 1
    assert named in result.stderr
    assert SECRET not in result.stderr + result.stdout


def test_validate_says_when_it_could_not_ask_the_app(project: Folder) -> None:
    project.write("app.py", "import nothing_of_that_name")
    for arguments in ({}, {"FLASK_APP": "missing.py"}):
        result = project.m9m("config", "validate", **arguments)
        assert result.returncode == 0
        assert "going on without its settings" in result.stderr


@pytest.mark.parametrize("variable", ["M9M_DEV_MODE", "M9M_DEVELOPMENT_ENABLED"])
def test_dev_has_the_last_word_over_the_environment(folder: Folder, variable: str) -> None:
    folder.write("app.py", APP + "app.config['M9M_DEV_MODE'] = False\n")
    code = (
        "import werkzeug.serving as s, json\n"
        "def run(host, port, app, **options):\n"
        "    settings = app.extensions['m9m'].loaded.settings\n"
        "    print(json.dumps([host, port, settings.development.enabled]))\n"
        "s.run_simple = run\n"
        "from flask.cli import main; main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "m9m", "serve", "--dev", "--port", "9"],
        cwd=folder.path,
        env=folder.environ(**{variable: "false"}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(result.stdout) == ["127.0.0.1", 9, True], result.stderr


def test_a_token_is_never_taken_as_an_argument_nor_echoed(project: Folder) -> None:
    token = jwt.encode({"sub": "a", "exp": 9e9}, SECRET)
    result = project.m9m("token", "inspect", token)
    assert result.returncode == 2
    assert token not in result.stderr + result.stdout
    assert "pipe it" in result.stderr
    assert project.m9m("token", "inspect", stdin=token).returncode == 0
    assert "No such file" in project.m9m("token", "inspect", "none").stderr


def test_init_and_secret_give_secrets_that_are_long_enough(folder: Folder) -> None:
    folder.m9m("init")
    folder.write("config.yaml", "security: {jwt: {algorithm: HS512}}")
    assert folder.m9m("config", "validate").returncode == 0
    assert len(folder.m9m("secret", "--bytes", "64").stdout.strip()) == 88
    folder.write(".env", f"M9M_JWT_SECRET={SECRET}\n")
    assert "flask m9m secret --bytes 64" in folder.m9m("config", "validate").stderr


def test_validate_says_what_it_read_and_warns_once(folder: Folder) -> None:
    folder.write("app.py", APP)
    result = folder.m9m("config", "validate")
    assert "no settings file was found: looked for" in result.stdout
    assert result.stderr.count("JWT is switched off") == 1
    folder.write("config.yaml", "{security: {}, queue: {}}")
    result = folder.m9m("config", "validate")
    assert "(settings read from config.yaml)" in result.stdout
    assert result.stderr.count("queue") == 1


@pytest.mark.parametrize("origin", ["https://app.example.com/", "app.example.com"])
def test_cors_check_shows_the_form_in_which_an_origin_is_sent(project: Folder, origin: str) -> None:
    result = project.m9m("cors", "check", origin, "get", "/items")
    assert result.returncode == 1
    assert 'write "https://app.example.com"' in result.stdout
    assert project.m9m("cors", "check", "https://app.example.com", "get", "/items").returncode == 0
