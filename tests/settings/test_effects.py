"""Each setting alone: it has its effect, or the start says why not; and where files are found."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_m9m import M9M
from flask_m9m.errors import SettingsError
from flask_m9m.settings import get, load
from flask_m9m.settings.paths import LEAVES

SECRET = "x1" * 32


@pytest.fixture(autouse=True)
def _in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder.parent / "home"))


KEY = "A" * 43 + "="

REFUSED: dict[str, tuple[Any, str]] = {
    "security.jwt.previous_secrets": ([SECRET], "security.jwt.secret is not set"),
    "security.jwt.algorithm": ("HS512", "security.jwt.secret is not set"),
    "security.jwt.expiration": ("1h", "security.jwt.secret is not set"),
    "security.jwt.refresh_expiration": ("1h", "security.jwt.secret is not set"),
    "security.jwt.refresh_max_age": ("2h", "security.jwt.secret is not set"),
    "security.jwt.accept_untyped": (False, "security.jwt.secret is not set"),
    "security.jwt.issuer": ("me", "security.jwt.secret is not set"),
    "security.jwt.audience": ("me", "security.jwt.secret is not set"),
    "security.jwt.leeway": ("5s", "security.jwt.secret is not set"),
    "security.jwt.enabled": (True, "not set, but security.jwt.enabled is true"),
    "security.jwt.cookie.enabled": (True, "not set, but security.jwt.cookie.enabled is true"),
    "security.jwt.cookie.same_site": ("Strict", "security.jwt.cookie.enabled is false"),
    "security.basic_auth.username": ("ops", "security.basic_auth.enabled is false"),
    "security.basic_auth.password": (SECRET, "security.basic_auth.enabled is false"),
    "security.basic_auth.password_hash": (SECRET, "security.basic_auth.enabled is false"),
    "security.basic_auth.realm": ("us", "security.basic_auth.enabled is false"),
    "credentials.previous_keys": ([KEY], "credentials.encryption_key is not set"),
    "credentials.cipher": ("fernet", "credentials.encryption_key is not set"),
    "credentials.environment": (["NAME"], "credentials.encryption_key is not set"),
    "database.postgres.url": ("postgresql://db/x", "database.type is sqlite"),
    "performance.rate_limit.requests_per_minute": (9, "performance.rate_limit.enabled is false"),
    "performance.rate_limit.burst": (9, "performance.rate_limit.enabled is false"),
    "performance.rate_limit.key": ("identity", "performance.rate_limit.enabled is false"),
    "performance.rate_limit.redis_url": ("redis://h/0", "performance.rate_limit.storage is shared"),
    "performance.rate_limit.storage": ("redis", "performance.rate_limit.redis_url: not set"),
    "api.enabled": (True, "not set, but api.enabled is true"),
    "api.prefix": ("/v2", "api.enabled is false"),
    "audit.sinks": (["log", "database"], "needs credentials.encryption_key"),
    "metrics.path": ("/numbers", "metrics.enabled is false"),
    "metrics.allowed_networks": (["10.0.0.0/8"], "metrics.enabled is false"),
    "server.tls.enabled": (True, "not set, but server.tls.enabled is true"),
}
WARNED: dict[str, tuple[Any, str]] = {
    "server.tls.cert_file": ("cert.pem", "server.tls.enabled is false"),
    "server.tls.key_file": ("key.pem", "server.tls.enabled is false"),
    "server.tls.min_version": ("1.3", "server.tls.enabled is false"),
    "server.proxy_headers": ("forwarded", "server.trusted_proxies is empty"),
    "server.trust_forwarded_host": (True, "server.trusted_proxies is empty"),
    "security.api_keys.max_per_owner": (3, "api.enabled is false"),
    "credentials.max_per_owner": (3, "api.enabled is false"),
    "performance.rate_limit.machines": (2, "performance.rate_limit.storage is shared"),
    "performance.rate_limit.lease": (2, "performance.rate_limit.storage is shared"),
    "audit.retention": ("30d", "audit.sinks has no database"),
    "database.type": ("postgres", "database.postgres.url"),
}
EFFECTIVE = (
    *(f"server.{name}" for name in ("host", "port", "workers", "threads", "https")),
    *(path for path in LEAVES if path.startswith(("server.limits.", "server.timeouts."))),
    *(path for path in LEAVES if path.startswith(("security.cors.", "security.headers."))),
    *(path for path in LEAVES if path.startswith(("security.lockout.", "security.revocation."))),
    "server.trusted_proxies",
    "server.allowed_networks",
    "security.default_access",
    "security.jwt.secret",
    "security.api_keys.enabled",
    "security.api_keys.header",
    "security.api_keys.prefix",
    "security.basic_auth.enabled",
    "security.errors.all",
    "security.users.min_password_length",
    "security.users.refuse_common",
    "security.errors.format",
    "credentials.encryption_key",
    "credentials.storage",
    "database.url",
    "database.sqlite.path",
    "database.upgrade",
    "database.pool_size",
    "database.pool_timeout",
    *(
        f"performance.rate_limit.{name}"
        for name in ("enabled", "ipv6_prefix", "path", "secret", "on_storage_failure")
    ),
    "performance.rate_limit.legacy_headers",
    "performance.rate_limit.shadow",
    "audit.enabled",
    "audit.omit",
    "metrics.enabled",
    "development.enabled",
)


def start(settings: dict[str, Any]) -> Flask:
    app = Flask("app")
    M9M(app, settings=settings)
    return app


def nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def test_every_setting_is_in_one_of_the_tables() -> None:
    assert sorted([*REFUSED, *WARNED, *EFFECTIVE]) == sorted(LEAVES)


@pytest.mark.parametrize("path", REFUSED)
def test_a_setting_without_effect_stops_the_start(folder: Path, path: str) -> None:
    value, reason = REFUSED[path]
    with pytest.raises(SettingsError) as caught:
        start(nested(path, value))
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("path", WARNED)
def test_a_setting_that_waits_for_another_is_a_warning(
    folder: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    value, reason = WARNED[path]
    start(nested(path, value))
    [line] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert path in line.getMessage()
    assert reason in line.getMessage()


def test_what_a_switch_that_is_set_turns_off_may_stay() -> None:
    for path, (value, _) in REFUSED.items():
        switch = f"{path.rpartition('.')[0]}.enabled"
        if switch in LEAVES and switch != path and get(load(environ={}).settings, switch) is False:
            if path.rpartition(".")[2] in ("redis_url", "storage"):
                continue  # limits of routes use the store too
            loaded = load(nested(path, value), flags={switch: False}, environ={})
            assert not loaded.idle, path


def test_a_configuration_of_m9m_says_which_database_counts() -> None:
    both = {"type": "postgres", "sqlite": {"path": "x.db"}, "postgres": {"url": "postgresql://h/x"}}
    assert not load({"database": both}, environ={}).idle
    [problem] = load({"database": {**both, "type": "sqlite"}}, environ={}).idle
    assert problem.path == "database.postgres.url"


def test_a_folder_of_limits_waits_for_files() -> None:
    limit = {"path": "x", "storage": "memory"}
    loaded = load({"performance": {"rate_limit": limit}}, environ={})
    assert not loaded.idle
    assert any("performance.rate_limit.path has no effect" in line for line in loaded.warnings)


def test_of_two_urls_one_has_no_effect() -> None:
    urls = {"url": "sqlite:///x.db", "postgres": {"url": "postgresql://h/x"}, "type": "postgres"}
    [problem] = load({"database": urls}, environ={}).idle
    assert "database.url is set" in problem.found


# Where files are


CONFIG = "security: {default_access: authenticated}\n"


@pytest.mark.parametrize("name", ["config.yaml", "config.yml"])
@pytest.mark.parametrize("place", [".", "project", "project/instance"])
def test_a_file_is_found_beside_the_app_wherever_it_is_started(
    folder: Path, name: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "project" / "instance").mkdir(parents=True)
    (folder / place / name).write_text(CONFIG)
    (folder / place / ".env").write_text(f"M9M_JWT_SECRET={SECRET}\n")
    root = folder / "project"
    app = Flask("app", root_path=str(root), instance_path=str(root / "instance"))
    with caplog.at_level(logging.INFO):
        m9m = M9M(app)
    with app.app_context():
        assert m9m.settings.security.default_access == "authenticated"
        assert m9m.settings.security.jwt.secret is not None
    assert f"settings read from {Path(place, name)}, {Path(place, '.env')}" in caplog.text


def test_a_package_has_its_settings_beside_it(folder: Path, tmp_path: Path) -> None:
    project = folder / "project"
    (project / "shop").mkdir(parents=True)
    (project / "config.yaml").write_text(CONFIG)
    app = Flask("shop", root_path=str(project / "shop"), instance_path=str(project / "instance"))
    m9m = M9M(app)
    with app.app_context():
        assert m9m.settings.security.default_access == "authenticated"


@pytest.mark.parametrize("other", ["config.yml", "project/config.yaml"])
def test_two_files_are_an_error_that_names_both(folder: Path, other: str) -> None:
    (folder / "project").mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    (folder / other).write_text(CONFIG)
    with pytest.raises(SettingsError) as caught:
        M9M(Flask("app", root_path=str(folder / "project")))
    assert f"config.yaml and {other}: both are there" in str(caught.value)
    (folder / other).write_text("logging: {level: debug}\n")  # of another tool
    M9M(Flask("app", root_path=str(folder / "project")))


def test_one_file_under_two_names_is_one(folder: Path) -> None:
    (folder / "project").mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "project" / "config.yaml").symlink_to(folder / "config.yaml")
    M9M(Flask("app", root_path=str(folder / "project")))


def test_a_start_without_a_file_says_where_it_looked(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        M9M(Flask("app", root_path=str(folder / "project")))
    assert (
        "no settings file was found: looked for config.yaml, config.yml and .env in" in caplog.text
    )
    assert "project" in caplog.text


def test_a_working_directory_that_is_gone_stops_no_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    M9M(Flask("app", root_path=str(folder), instance_path=str(folder / "instance")))
    monkeypatch.chdir(folder)


# References


@pytest.mark.parametrize("text", ["10.0.0.1, 10.0.0.2", '["10.0.0.1", "10.0.0.2"]'])
def test_a_reference_supplies_a_whole_list(folder: Path, text: str) -> None:
    (folder / "config.yaml").write_text("security: {}\nserver: {trusted_proxies: '${PROXIES}'}\n")
    loaded = load(environ={"PROXIES": text})
    assert [str(network) for network in loaded.settings.server.trusted_proxies] == [
        "10.0.0.1",
        "10.0.0.2",
    ]


def test_a_reference_to_an_empty_variable_is_not_set(folder: Path) -> None:
    (folder / "config.yaml").write_text(
        "security: {}\nserver: {trusted_proxies: '${EMPTY}', port: '${EMPTY}', host: '${NONE:-}'}\n"
    )
    loaded = load(environ={"EMPTY": ""})
    for path in ("server.trusted_proxies", "server.port", "server.host"):
        assert get(loaded.settings, path) == LEAVES[path].default
        assert loaded.sources[path] == "default"


@pytest.mark.parametrize("environ", [{}, {"M9M_JWT_SECRET": ""}])
def test_a_secret_that_a_reference_lacks_gets_no_default_in_the_file(
    folder: Path, environ: dict[str, str]
) -> None:
    (folder / "config.yaml").write_text("security: {jwt: {secret: '${M9M_JWT_SECRET}'}}\n")
    with pytest.raises(SettingsError) as caught:
        load(environ=environ)
    assert "security.jwt.secret (from config.yaml)" in str(caught.value)
    assert ":-" not in str(caught.value)


# Messages


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("security:\n\tjwt: {}\n", "a tab at line 2, column 1; indent with blanks"),
        ('security:\n  jwt: {secret: "abc}\nserver: {}\n', "opened at line 2, column 17 is not"),
        ("security: a: b\n", "a colon at line 1, column 12 in a value; put the value in quotes"),
        ("security: @x\n", "a sign at line 1, column 11 that cannot begin a value"),
    ],
)
def test_an_error_of_yaml_says_what_is_wrong_and_where(folder: Path, text: str, said: str) -> None:
    (folder / "config.yaml").write_text(text)
    with pytest.raises(SettingsError, match="not valid YAML") as caught:
        load(environ={})
    assert said in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "app.localhost"])
def test_a_local_origin_without_a_scheme_is_probably_plain_http(host: str) -> None:
    with pytest.raises(SettingsError, match="write ") as caught:
        load({"security": {"cors": {"allowed_origins": [f"{host}:3000"]}}}, environ={})
    assert f'write "http://{host}:3000"' in str(caught.value)
