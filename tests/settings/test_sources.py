"""Precedence and provenance, and what each source may look like."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from flask_m9m.errors import SettingsError
from flask_m9m.settings import Settings, get, load

from .conftest import Load, Problems

MAX_AGE = "security.cors.max_age"
PRODUCTION = """
security:
  jwt: {enabled: true, secret: "${JWT_SECRET}", expiration: "8h"}
  api_keys: {enabled: true}
  cors: {enabled: true, allowed_origins: ["https://your-app.com"], allow_credentials: true}
credentials: {encryption_key: "${ENCRYPTION_KEY}"}
server:
  tls:
    {enabled: true, cert_file: "/etc/ssl/certs/m9m.pem", key_file: "/etc/ssl/private/m9m.key"}
performance: {rate_limit: {enabled: true, requests_per_minute: 100}}
"""
SECRETS = {"JWT_SECRET": "j" * 32, "ENCRYPTION_KEY": "e" * 32}


def nested(value: object) -> dict[str, Any]:
    return {"security": {"cors": {"max_age": value}}}


def test_nothing_given_is_the_defaults(loading: Load) -> None:
    loaded = loading()
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}
    assert loaded.warnings == ()
    assert loaded.files == ()


def test_the_production_example_works_as_written(loading: Load, folder: Path) -> None:
    (folder / "config.yaml").write_text(PRODUCTION)
    loaded = loading(environ=SECRETS)
    settings = loaded.settings
    assert settings.security.jwt.expiration == 8 * 3600
    assert settings.security.jwt.secret == SecretStr("j" * 32)
    assert settings.security.cors.allowed_origins == ("https://your-app.com",)
    assert settings.security.cors.allow_credentials is True
    assert settings.server.tls.cert_file == "/etc/ssl/certs/m9m.pem"
    assert settings.performance.rate_limit.requests_per_minute == 100
    assert loaded.warnings == ()
    assert loaded.files == (folder / "config.yaml",)


def test_the_production_example_without_its_variables_names_both_paths(
    problems: Problems, folder: Path
) -> None:
    (folder / "config.yaml").write_text(PRODUCTION)
    assert [(problem.path, problem.found) for problem in problems()] == [
        ("credentials.encryption_key", "${ENCRYPTION_KEY} is not set"),
        ("security.jwt.secret", "${JWT_SECRET} is not set"),
    ]


def test_each_source_overrides_the_one_before_and_is_named(loading: Load, folder: Path) -> None:
    (folder / "config.yaml").write_text("security: {cors: {max_age: 1}}")
    assert source_of(loading(), 1) == "config.yaml"
    (folder / ".env").write_text("M9M_SECURITY_CORS_MAX_AGE=2\n")
    assert source_of(loading(), 2) == ".env M9M_SECURITY_CORS_MAX_AGE"
    environ = {"M9M_SECURITY_CORS_MAX_AGE": "3"}
    assert source_of(loading(environ=environ), 3) == "environment M9M_SECURITY_CORS_MAX_AGE"
    config: dict[str, Any] = {"M9M": nested(4)}
    assert source_of(loading(environ=environ, app_config=config), 4) == "app.config"
    config["M9M_SECURITY_CORS_MAX_AGE"] = 5
    assert (
        source_of(loading(environ=environ, app_config=config), 5)
        == "app.config M9M_SECURITY_CORS_MAX_AGE"
    )
    mapping = nested(6)
    assert source_of(loading(mapping, environ=environ, app_config=config), 6) == "settings="
    flags = {MAX_AGE: 7, "server.port": None}
    loaded = loading(mapping, environ=environ, app_config=config, flags=flags)
    assert source_of(loaded, 7) == "command line"
    assert loaded.sources["server.port"] == "default"
    assert loaded.files == (folder / "config.yaml", folder / ".env")


def source_of(loaded: Any, max_age: int) -> str:
    assert loaded.settings.security.cors.max_age == max_age
    return str(loaded.sources[MAX_AGE])


def test_sources_are_merged_setting_by_setting(loading: Load, folder: Path) -> None:
    (folder / "config.yaml").write_text(
        "security: {cors: {max_age: 1, allowed_origins: [https://a.example]}}"
    )
    cors = loading({"security": {"cors": {"allowed_origins": ["https://b.example"]}}})
    assert cors.settings.security.cors.max_age == 1
    assert cors.settings.security.cors.allowed_origins == ("https://b.example",)


def test_a_value_that_is_overridden_need_not_be_right(loading: Load, folder: Path) -> None:
    (folder / "config.yaml").write_text('security: {jwt: {secret: "${UNSET}"}}')
    loaded = loading(environ={"M9M_JWT_SECRET": "s" * 32})
    assert loaded.settings.security.jwt.secret == SecretStr("s" * 32)


# --- the configuration file


def test_settings_may_be_the_path_of_a_file(loading: Load, folder: Path) -> None:
    (folder / "config.yaml").write_text("security: {cors: {max_age: 1}}")
    (folder / "other.yaml").write_text("security: {cors: {max_age: 2}}")
    environ = {"M9M_CONFIG": "config.yaml"}
    for path in ("other.yaml", Path("other.yaml"), folder / "other.yaml"):
        assert source_of(loading(path, environ=environ), 2) == "other.yaml"


@pytest.mark.parametrize("source", ["environ", "app_config", "dotenv"])
def test_m9m_config_names_the_file(loading: Load, folder: Path, source: str) -> None:
    (folder / "config.yaml").write_text("security: {cors: {max_age: 1}}")
    (folder / "etc").mkdir()
    (folder / "etc" / "named.yaml").write_text("security: {cors: {max_age: 2}}")
    if source == "dotenv":
        (folder / ".env").write_text("M9M_CONFIG=etc/named.yaml\n")
        loaded = loading()
    else:
        loaded = loading(**{source: {"M9M_CONFIG": "etc/named.yaml"}})
    assert source_of(loaded, 2) == str(Path("etc/named.yaml"))


def test_m9m_config_is_a_path(problems: Problems) -> None:
    (problem,) = problems(app_config={"M9M_CONFIG": 5})
    assert (problem.path, problem.found, problem.accepted) == (
        "M9M_CONFIG",
        "a number",
        "must be a path",
    )


def test_the_search_takes_the_first_file(loading: Load, folder: Path) -> None:
    places = [
        folder.parent / "etc" / "config.yaml",
        folder.parent / "home" / ".m9m" / "config" / "config.yaml",
        folder / "config.yaml",
    ]
    for max_age, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"security: {{cors: {{max_age: {max_age}}}}}")
        assert loading().settings.security.cors.max_age == max_age
        assert loading().files == (place,)


@pytest.mark.parametrize(
    "text",
    [
        "name: another tool\nqueue: {}\n1: {}\n",
        "security: none\n",
        "- a\n- b\n",
        "",
        "just text",
        "a: !custom b\n",
        "a: 1\n---\nb: 2\n",
        "\tbroken: [",
        "a: \x07\n",
    ],
)
def test_a_file_of_another_tool_is_passed_over_with_one_line(
    loading: Load, folder: Path, text: str
) -> None:
    (folder / "config.yaml").write_text(text)
    loaded = loading()
    assert loaded.settings == Settings()
    assert loaded.files == ()
    assert loaded.warnings == (
        "config.yaml is ignored: it has no readable security, credentials or performance mapping",
    )


def test_a_file_that_may_be_meant_for_us_is_passed_over_with_what_mends_it(
    loading: Load, folder: Path
) -> None:
    (folder / "config.yaml").write_text("server: {port: 1}\naudit: {sinks: [log, database]}\n")
    loaded = loading()
    assert loaded.settings == Settings()
    assert loaded.ignored_sections == {"config.yaml": ("server", "audit")}
    (warning,) = loaded.warnings
    assert warning.endswith("; to use its server, audit for flask-m9m, add security: {}")
    (folder / "config.yaml").write_text("server: {port: 1}\nsecurity: {}\n")
    assert loading().settings.server.port == 1


def test_after_a_file_of_another_tool_the_search_goes_on(loading: Load, folder: Path) -> None:
    (folder / "config.yaml").write_text("server: {port: 1}")
    system = folder.parent / "etc" / "config.yaml"
    system.parent.mkdir()
    system.write_text("performance: {rate_limit: {burst: 3}}")
    loaded = loading()
    assert loaded.settings.performance.rate_limit.burst == 3
    assert loaded.settings.server.port == 8080
    assert loaded.sources["performance.rate_limit.burst"] == str(system)


def test_a_broken_file_that_has_our_sections_stops_the_start(
    problems: Problems, folder: Path
) -> None:
    (folder / "config.yaml").write_text("security:\n  jwt: {secret: abcdefgh\n")
    (problem,) = problems()
    assert problem.path == "config.yaml"
    assert "not valid YAML at line 3" in problem.found
    assert "abcdefgh" not in str(problem)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"security: {}\nsecurity: {}\n", 'the key "security" is repeated at line 2'),
        (b"security:\n  cors: {max_age: 1, max_age: 2}\n", 'the key "max_age" is repeated'),
        (b"- security\n", "not a mapping"),
        (b"security", "not a mapping"),
        (b"security: \xff\n", "not UTF-8 at byte 10"),
        (b"security: \x01\n", "not valid YAML"),
        (b"security: *hidden\n", "not valid YAML at line 1, column 11"),
        (b"security: !hidden x\n", "not valid YAML at line 1, column 11"),
        (b"security: {}\n---\nsecurity: {}\n", "not valid YAML"),
        (b"security: 2001-99-99\n", "a value that cannot be read"),
        (b"server: {port: " + b"9" * 5_000 + b"}\n", "a value that cannot be read"),
        (b"[" * 20_000, "not"),
        (b"#" * 1_100_000, "larger than 1 MiB"),
        (b"? {a: b}\n: c\n", "a value that cannot be read|not valid YAML"),
    ],
)
def test_a_named_file_must_be_one_mapping_in_yaml(
    problems: Problems, folder: Path, content: bytes, found: str
) -> None:
    (folder / "broken.yaml").write_bytes(content)
    (problem,) = problems("broken.yaml")
    assert problem.path == "broken.yaml"
    assert re.match(found, problem.found)
    assert "hidden" not in str(problem)


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\x00b", "x" * 5_000])
def test_a_named_file_that_cannot_be_read_stops_the_start(problems: Problems, name: str) -> None:
    for problem in [
        *problems(name),
        *problems(environ={"M9M_CONFIG": name}),
        *problems(app_config={"M9M_CONFIG": name}),
    ]:
        assert problem.accepted == "name a readable YAML file"
        assert problem.source in ("settings=", "environment M9M_CONFIG", "app.config M9M_CONFIG")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_ours_that_may_not_be_read_stops_the_start(
    problems: Problems, folder: Path
) -> None:  # pragma: no cover
    (folder / "config.yaml").write_text("security: {}")
    (folder / "config.yaml").chmod(0)
    assert [problem.path for problem in problems()] == ["config.yaml"]


def test_anchors_and_merge_keys_are_fine(loading: Load, folder: Path) -> None:
    (folder / "config.yaml").write_text(
        "security:\n  lockout: &one {attempts: 5}\n  lockout2: &two {<<: *one, attempts: 6}\n"
    )
    with pytest.raises(SettingsError) as caught:  # of the unknown section alone
        loading()
    assert [problem.path for problem in caught.value.problems] == ["security.lockout2"]


def test_empty_sections_are_empty(loading: Load, folder: Path) -> None:
    (folder / "config.yaml").write_text("security:\n  cors:\n  jwt: {}\nserver:\n")
    assert loading("config.yaml").settings == Settings()


def test_a_document_that_contains_itself_is_refused(problems: Problems, folder: Path) -> None:
    (folder / "config.yaml").write_text(
        "security: {cors: {allowed_origins: &a [*a]}, jwt: &b {secret: *b}}\n"
    )
    assert [problem.path for problem in problems()] == [
        "security.cors.allowed_origins[0]",
        "security.jwt.secret",
    ]


def test_an_empty_mapping_is_a_file_of_nothing(loading: Load, folder: Path) -> None:
    (folder / "empty.yaml").write_text("# nothing yet\n")
    assert loading("empty.yaml").settings == Settings()


# --- .env


def test_dotenv_beside_the_configuration_file_comes_first(loading: Load, folder: Path) -> None:
    (folder / "etc").mkdir()
    (folder / "etc" / "config.yaml").write_text("security: {}")
    (folder / ".env").write_text("M9M_PORT=1\n")
    assert loading("etc/config.yaml").settings.server.port == 1
    (folder / "etc" / ".env").write_text("M9M_PORT=2\n")
    loaded = loading("etc/config.yaml")
    assert loaded.settings.server.port == 2
    assert loaded.sources["server.port"] == f"{Path('etc/.env')} M9M_PORT"


def test_dotenv_is_never_looked_for_above(loading: Load, folder: Path) -> None:
    (folder.parent / ".env").write_text("M9M_PORT=1\n")
    (folder / ".env").mkdir()  # as some name their virtual environment
    assert loading().settings.server.port == 8080


def test_dotenv_feeds_references_and_is_not_exported(loading: Load, folder: Path) -> None:
    (folder / ".env").write_text(
        "export AGE='6'\nHALF=${AGE}0\nM9M_SECURITY_CORS_MAX_AGE=${HALF}0\n"
    )
    loaded = loading({"security": {"lockout": {"per": "${AGE}m"}}})
    assert loaded.settings.security.cors.max_age == 600
    assert loaded.settings.security.lockout.per == 360
    assert "AGE" not in os.environ
    assert "M9M_SECURITY_CORS_MAX_AGE" not in os.environ


def test_a_line_of_dotenv_that_cannot_be_read_is_never_silent(
    loading: Load, problems: Problems, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / ".env").write_text("M9M_PORT=1\nother = 'open\n")
    with caplog.at_level(logging.DEBUG):
        loaded = loading()
    assert loaded.warnings == (".env: line 2 cannot be read and is ignored",)
    (folder / ".env").write_text("A=1\nM9M_JWT_SECRET='hidden\n")
    (problem,) = problems()
    assert str(problem).startswith(".env: line 2 cannot be read")
    assert "hidden" not in str(problem)


def test_a_dotenv_that_is_not_text_stops_the_start(problems: Problems, folder: Path) -> None:
    (folder / ".env").write_bytes(b"M9M_PORT=\xff\n")
    assert str(problems()[0]).startswith(".env: a file that is not UTF-8")


def test_what_the_flask_command_exports_is_still_dotenv_speaking(
    loading: Load, folder: Path
) -> None:
    (folder / ".env").write_text("M9M_PORT=1\n")
    loaded = loading(environ={"M9M_PORT": "1"})
    assert loaded.sources["server.port"] == ".env M9M_PORT"
    loaded = loading(environ={"M9M_PORT": "1", "M9M_SERVER_PORT": "2"})
    assert loaded.settings.server.port == 2


# --- app.config, mappings, Settings


def test_app_config_holds_a_nested_mapping_or_flat_keys(loading: Load) -> None:
    loaded = loading(
        app_config={
            "M9M": {"server": {"port": "${PORT}"}},
            "M9M_SECURITY_CORS_ALLOWED_ORIGINS": ["https://a.example"],
            "M9M_AUDIT_SINKS": "log, database",
            "M9M_AUDIT_ENABLED": False,
            "M9M_DEV_MODE": True,
            "SECRET_KEY": "x",
            "MAX_CONTENT_LENGTH": 3,
        },
        environ={"PORT": "9"},
    )
    assert loaded.settings.server.port == 9
    assert loaded.settings.security.cors.allowed_origins == ("https://a.example",)
    assert loaded.settings.audit.sinks == ("log", "database")
    assert loaded.settings.development.enabled is True


@pytest.mark.parametrize("value", ["server: {}", 5, ["server"], True])
def test_the_nested_mapping_must_be_one(problems: Problems, value: object) -> None:
    (problem,) = problems(app_config={"M9M": value})
    assert problem.path == "app.config"
    assert "server" not in problem.found


def test_app_config_without_m9m_gives_nothing(loading: Load) -> None:
    assert loading(app_config={"M9M": None, "DEBUG": True}).settings == Settings()


def test_what_is_neither_path_nor_mapping_nor_settings_is_refused(problems: Problems) -> None:
    for value in (5, ["config.yaml"], True, b"config.yaml"):
        (problem,) = problems(value)
        assert problem.accepted == "must be a path, a mapping or a Settings object"


def test_a_settings_object_is_complete(loading: Load, folder: Path) -> None:
    (folder / "config.yaml").write_text("security: {cors: {max_age: 1}}")
    (folder / ".env").write_text("M9M_PORT=1\n")
    settings = Settings.model_validate({"server": {"workers": 9}})
    loaded = loading(
        settings, environ={"M9M_PORT": "2"}, app_config={"M9M_PORT": 3}, flags={"server.port": 4}
    )
    assert loaded.settings == settings
    assert loaded.files == ()
    assert {path: source for path, source in loaded.sources.items() if source != "default"} == {
        "server.workers": "settings="
    }


def test_a_settings_object_is_checked_too(problems: Problems) -> None:
    settings = Settings.model_validate({"server": {"tls": {"enabled": True}}})
    assert {problem.path for problem in problems(settings)} == {
        "server.tls.cert_file",
        "server.tls.key_file",
    }
    cors = settings.security.cors.model_copy(
        update={"allowed_origins": ("*",), "allow_credentials": True}
    )
    security = settings.security.model_copy(update={"cors": cors, "unknown": 1})
    copied = Settings().model_copy(update={"security": security, "unknown": 1})
    assert [problem.path for problem in problems(copied)] == ["security.cors.allow_credentials"]


def test_flags_are_paths(problems: Problems) -> None:
    (problem,) = problems(flags={"server.prot": 1})
    assert (
        str(problem) == "server.prot (from command line): not a setting; did you mean server.port?"
    )


def test_a_frozen_result(loading: Load) -> None:
    loaded = loading()
    with pytest.raises(AttributeError):
        loaded.settings = Settings()  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        loaded.settings.server.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        loaded.sources["server.port"] = "me"  # type: ignore[index]


def test_nothing_given_reads_the_process(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder.parent / "home"))
    monkeypatch.setenv("M9M_PORT", "7")
    (folder / "config.yaml").write_text("security: {cors: {max_age: 1}}")
    loaded = load()
    assert loaded.settings.server.port == 7
    assert loaded.sources[MAX_AGE] == "config.yaml"


def test_a_user_without_a_home_is_no_error(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def no_home() -> Path:
        raise RuntimeError("no home directory")

    monkeypatch.setattr(Path, "home", no_home)
    assert load(environ={}, cwd=folder).settings == Settings()


def test_get_reads_a_path() -> None:
    assert get(Settings(), "server.tls.min_version") == "1.2"
    with pytest.raises(KeyError):
        get(Settings(), "server.tls.min")


def test_importing_and_loading_stay_light() -> None:
    code = (
        "import sys; from flask import Flask; before = set(sys.modules); from flask_m9m import M9M;"
        "M9M(Flask('app'));"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} &"
        "{'yaml', 'dotenv', 'pydantic_settings', 'sqlalchemy', 'alembic', 'gunicorn', 'redis'}))"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "content",
    [
        b'{"security": {"default_access": "authenticated"}, "x": [}',
        b"--- {security: {default_access: authenticated}, security: {}}",
        b'"security": {}\n"security": {}\n',
        b"  security:\n    jwt: {secret: x\n",
        "security: {default_access: authenticated}\n".encode("utf-16"),
        b"\xef\xbb\xbfsecurity: [}\n",
    ],
)
def test_a_file_of_ours_that_is_broken_in_any_way_is_not_passed_over(
    problems: Problems, folder: Path, content: bytes
) -> None:
    (folder / "config.yaml").write_bytes(content)
    (problem,) = problems()
    assert problem.path == "config.yaml"


@pytest.mark.parametrize(
    "value", ["abcdefgh$${X}" * 4, "${X}abcdefghabcdefgh${MISSING:-y}abcdefgh"]
)
def test_dotenv_means_the_same_under_the_flask_command_and_a_wsgi_server(
    loading: Load, folder: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    from dotenv import dotenv_values

    (folder / ".env").write_text(f"X=xxxxxxxx\nM9M_JWT_SECRET={value}\n")
    exported = {name: text or "" for name, text in dotenv_values(folder / ".env").items()}
    secrets = [
        loading(environ=environ).settings.security.jwt.secret.get_secret_value()
        for environ in ({}, exported)
    ]
    assert secrets[0] == secrets[1]
    assert exported["M9M_JWT_SECRET"] != secrets[0] or "$$" not in value


@pytest.mark.parametrize("source", ["app_config", "environ"])
def test_flags_have_the_last_word(loading: Load, source: str) -> None:
    given: dict[str, Any] = {"M9M_DEV_MODE": "false"}
    loaded = loading(**{source: given}, flags={"development.enabled": True, "server.host": None})
    assert loaded.settings.development.enabled
    assert loaded.sources["development.enabled"] == "command line"
    assert loaded.sources["server.host"] == "default"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"security": {"cors": {"allowed_headers": ["*"]}}}, "does not cover Authorization"),
        (
            {
                "security": {
                    "cors": {
                        "allowed_origins": ["https://a.example"],
                        "expose_headers": ["*"],
                        "allow_credentials": True,
                    }
                }
            },
            "exposes nothing",
        ),
    ],
)
def test_what_is_probably_not_meant_is_a_warning(
    loading: Load, settings: dict[str, Any], words: str
) -> None:
    (warning,) = loading(settings).warnings
    assert words in warning


def test_a_path_written_with_underscores_is_recognised(problems: Problems) -> None:
    (problem,) = problems({"security": {"jwt_secret": "x"}})
    assert "did you mean security.jwt.secret?" in problem.accepted


@pytest.mark.parametrize(
    ("network", "right"), [("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:1.2.3.4", "1.2.3.4/32")]
)
def test_a_mapped_network_could_never_match_and_is_refused(
    problems: Problems, network: str, right: str
) -> None:
    for key in ("trusted_proxies", "allowed_networks"):
        (problem,) = problems({"server": {key: [network]}})
        assert right in problem.accepted


@pytest.mark.parametrize("name", ["securty", "Security", "secuirty", "performence", "credential"])
def test_a_found_file_whose_section_is_mistyped_is_not_passed_over(
    problems: Problems, folder: Path, name: str
) -> None:
    (folder / "config.yaml").write_text(f"{name}: {{default_access: authenticated}}\n")
    (problem,) = problems()
    assert problem.path.lower().startswith(name.lower())
    assert "did you mean" in problem.accepted


def test_a_mapping_alone_is_read_with_the_same_care() -> None:
    from flask_m9m.settings import settings_of

    assert settings_of({"server": {"port": 9}}).server.port == 9
    with pytest.raises(SettingsError, match=r"did you mean security\?"):
        settings_of({"securty": {}})
    with pytest.raises(SettingsError, match="UNSET"):
        settings_of({"security": {"jwt": {"secret": "${UNSET}"}}})
