"""`flask m9m config show` says where each value came from."""

from __future__ import annotations

import json
from typing import Any

import yaml

from tests.cli.conftest import SECRET, Folder

APP = """\
from flask import Flask
from flask_m9m import M9M

app = Flask(__name__)
app.config["M9M"] = {"security": {"cors": {"max_age": 5}}}
app.config["M9M_SECURITY_CORS_ALLOW_CREDENTIALS"] = False
M9M(app, settings={"server": {"threads": 3}})
"""


def shown(folder: Folder, **environ: str) -> dict[str, tuple[Any, str]]:
    result = folder.m9m("config", "show", "-o", "json", **environ)
    assert result.returncode == 0, result.stderr
    assert SECRET not in result.stdout
    rows = json.loads(result.stdout)
    return {path: (row["value"], row["source"]) for path, row in rows.items()}


def test_every_kind_of_source_is_named(folder: Folder) -> None:
    folder.write("app.py", APP)
    folder.write("secret", SECRET)
    folder.write("m9m.yaml", "security: {lockout: {attempts: 3}}\nserver: {host: 127.0.0.2}\n")
    folder.write(".env", "M9M_CONFIG=m9m.yaml\nM9M_SERVER_WORKERS=4\n")
    rows = shown(folder, M9M_PORT="9001", M9M_JWT_SECRET_FILE="secret")
    assert rows["security.lockout.attempts"] == (3, "m9m.yaml")
    assert rows["server.workers"] == (4, ".env M9M_SERVER_WORKERS")
    assert rows["server.port"] == (9001, "environment M9M_PORT")
    assert rows["security.jwt.secret"] == ("********", "environment M9M_JWT_SECRET_FILE")
    assert rows["security.cors.max_age"] == (5, "app.config")
    name = "M9M_SECURITY_CORS_ALLOW_CREDENTIALS"
    assert rows["security.cors.allow_credentials"] == (False, f"app.config {name}")
    assert rows["server.threads"] == (3, "settings=")
    assert rows["security.headers.permissions_policy"][1] == "preset api"
    assert rows["security.lockout.per"] == (60, "default")


def test_of_several_names_for_one_setting_the_one_that_gave_it_is_named(folder: Folder) -> None:
    def port(**environ: str) -> tuple[Any, str]:
        return shown(folder, **environ)["server.port"]

    assert port(N8N_PORT="9003") == (9003, "environment N8N_PORT")
    assert port(N8N_PORT="9003", M9M_PORT="9002") == (9002, "environment M9M_PORT")
    assert port(N8N_PORT="9003", M9M_SERVER_PORT="9001") == (9001, "environment M9M_SERVER_PORT")
    assert port(M9M_PORT="", N8N_PORT="9003") == (9003, "environment N8N_PORT")
    rows = shown(folder, N8N_ENCRYPTION_KEY=SECRET)
    assert rows["credentials.encryption_key"] == ("********", "environment N8N_ENCRYPTION_KEY")


def test_what_the_environment_says_hides_the_other_sources(folder: Folder) -> None:
    folder.write("config.yaml", "security: {cors: {max_age: 1}}")
    assert shown(folder)["security.cors.max_age"] == (1, "config.yaml")
    folder.write(".env", "M9M_SECURITY_CORS_MAX_AGE=2")
    assert shown(folder)["security.cors.max_age"] == (2, ".env M9M_SECURITY_CORS_MAX_AGE")
    assert shown(folder, M9M_SECURITY_CORS_MAX_AGE="3")["security.cors.max_age"] == (
        3,
        "environment M9M_SECURITY_CORS_MAX_AGE",
    )


def test_a_value_that_refers_to_another_names_it(folder: Folder) -> None:
    folder.write("secret", SECRET)
    folder.write(
        "config.yaml",
        "security:\n"
        "  jwt: {secret: '${file:secret}', expiration: '${LIFE:-2h}', issuer: 'a$${b}'}\n"
        "  cors: {allowed_origins: ['https://${HOST}', 'https://b.${HOST}']}\n",
    )
    folder.write(".env", "M9M_SECURITY_JWT_AUDIENCE=${HOST}-${HOST}\n")
    rows = shown(folder, HOST="example.com")
    assert rows["security.jwt.secret"] == ("********", "config.yaml ${file:secret}")
    assert rows["security.jwt.expiration"] == (7200, "config.yaml")
    assert rows["security.jwt.issuer"] == ("a${b}", "config.yaml")
    assert rows["security.cors.allowed_origins"][1] == "config.yaml ${HOST}"
    audience = ("example.com-example.com", ".env M9M_SECURITY_JWT_AUDIENCE ${HOST}")
    assert rows["security.jwt.audience"] == audience
    rows = shown(folder, HOST="example.com", LIFE="1h")
    assert rows["security.jwt.expiration"] == (3600, "config.yaml ${LIFE}")


def test_a_default_that_stands_in_a_reference_is_never_printed(folder: Folder) -> None:
    folder.write("config.yaml", f"security: {{jwt: {{secret: '${{NAME:-{SECRET}}}'}}}}")
    assert shown(folder)["security.jwt.secret"] == ("********", "config.yaml")
    assert shown(folder, NAME=SECRET[::-1])["security.jwt.secret"][1] == "config.yaml ${NAME}"


def test_every_form_of_output_says_the_same(folder: Folder) -> None:
    folder.write("app.py", APP)
    as_json = json.loads(folder.m9m("config", "show", "-o", "json").stdout)
    assert yaml.safe_load(folder.m9m("config", "show", "-o", "yaml").stdout) == as_json
    table = folder.m9m("config", "show").stdout.splitlines()
    assert table[0].split() == ["SETTING", "SOURCE", "VALUE"]
    assert {line.split()[0] for line in table[1:]} == set(as_json)
    for line in table[1:]:
        setting, rest = line.split(maxsplit=1)
        assert rest.startswith(as_json[setting]["source"])
