from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from flask_m9m.settings import Settings, get
from flask_m9m.settings.paths import LEAVES

from .conftest import Load, Problems


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("M9M_SECURITY_CORS_MAX_AGE", "600", "security.cors.max_age", 600),
        ("M9M_JWT_SECRET", "s" * 32, "security.jwt.secret", SecretStr("s" * 32)),
        ("M9M_JWT_EXPIRATION", "8h", "security.jwt.expiration", 28_800),
        ("M9M_ENCRYPTION_KEY", "k" * 32, "credentials.encryption_key", SecretStr("k" * 32)),
        ("M9M_HOST", "0.0.0.0", "server.host", "0.0.0.0"),
        ("M9M_PORT", "9000", "server.port", 9000),
        ("M9M_DEV_MODE", "true", "development.enabled", True),
        ("M9M_DB_TYPE", "postgres", "database.type", "postgres"),
        ("M9M_DB_PATH", "/data/m9m.db", "database.sqlite.path", "/data/m9m.db"),
        (
            "M9M_POSTGRES_URL",
            "postgres://u:p@db/m9m",
            "database.postgres.url",
            SecretStr("postgres://u:p@db/m9m"),
        ),
        ("M9M_SERVER_HTTPS", "off", "server.https", "off"),
        ("M9M_SERVER_TLS_MIN_VERSION", "1.3", "server.tls.min_version", "1.3"),
        ("M9M_PERFORMANCE_RATE_LIMIT_ENABLED", "false", "performance.rate_limit.enabled", False),
        ("M9M_PERFORMANCE_RATE_LIMIT_ENABLED", "1", "performance.rate_limit.enabled", True),
    ],
)
def test_a_variable_gives_a_setting(
    loading: Load, name: str, text: str, path: str, value: object
) -> None:
    loaded = loading(environ={name: text})
    assert get(loaded.settings, path) == value
    assert loaded.sources[path] == f"environment {name}"


def test_every_setting_has_a_variable_named_after_its_path(loading: Load) -> None:
    for leaf in LEAVES.values():
        assert leaf.variable == "M9M_" + leaf.path.upper().replace(".", "_")
    assert len({leaf.variable for leaf in LEAVES.values()}) == len(LEAVES)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("https://a.example", ("https://a.example",)),
        (" https://a.example , https://b.example,", ("https://a.example", "https://b.example")),
        ('["https://a.example", "https://b.example"]', ("https://a.example", "https://b.example")),
        ("${A}", ("https://a.example", "https://b.example")),
        ('["${B}"]', ("https://b.example",)),
        ("[]", ()),
        ("", ()),
    ],
)
def test_a_list_is_comma_separated_or_json(
    loading: Load, text: str, items: tuple[str, ...]
) -> None:
    environ = {
        "M9M_SECURITY_CORS_ALLOWED_ORIGINS": text,
        "A": "https://a.example,https://b.example",
        "B": "https://b.example",
    }
    assert loading(environ=environ).settings.security.cors.allowed_origins == items


@pytest.mark.parametrize("text", ["[", '["a"', "[1,]", "[" * 100_000, '["\\ud800"]', "[{}]", "[5]"])
def test_a_list_that_is_no_list_of_texts_is_refused(problems: Problems, text: str) -> None:
    for problem in problems(environ={"M9M_SECURITY_CORS_ALLOWED_ORIGINS": text}):
        assert problem.path.startswith("security.cors.allowed_origins")


@pytest.mark.parametrize("path", LEAVES)
def test_an_empty_variable_is_not_set(loading: Load, path: str) -> None:
    loaded = loading(environ={LEAVES[path].variable: ""})
    assert loaded.settings == Settings()
    assert loaded.sources[path] == "default"


@pytest.mark.parametrize("path", [path for path, leaf in LEAVES.items() if leaf.is_secret])
def test_every_secret_can_come_from_a_file(loading: Load, folder: Path, path: str) -> None:
    leaf = LEAVES[path]
    text = "redis://host/0" if path.endswith("url") else "${NOT_A_REFERENCE} " + "s" * 32
    (folder / "secret").write_text(f"{text}\n")
    loaded = loading(environ={f"{leaf.variable}_FILE": "secret"})
    expected = SecretStr(text)
    assert get(loaded.settings, path) == ((expected,) if leaf.is_list else expected)
    assert loaded.sources[path] == f"environment {leaf.variable}_FILE"


def test_a_file_lists_secrets_one_a_line_or_in_json(loading: Load, folder: Path) -> None:
    secrets = ["a, " + "s" * 32, "b" * 32]
    environ = {"M9M_SECURITY_JWT_PREVIOUS_SECRETS_FILE": str(folder / "list")}
    for text in ("\n".join(secrets) + "\n", f'["{secrets[0]}", "{secrets[1]}"]\n'):
        (folder / "list").write_text(text)
        previous = loading(environ=environ).settings.security.jwt.previous_secrets
        assert [secret.get_secret_value() for secret in previous] == secrets


def test_short_names_have_a_file_form_and_paths_may_hold_references(
    loading: Load, folder: Path
) -> None:
    (folder / "jwt").write_text("s" * 32)
    loaded = loading(environ={"M9M_JWT_SECRET_FILE": "${DIR}/jwt", "DIR": str(folder)})
    assert loaded.settings.security.jwt.secret == SecretStr("s" * 32)


def test_a_file_that_cannot_be_read_stops_the_start(problems: Problems) -> None:
    (problem,) = problems(environ={"M9M_JWT_SECRET_FILE": "/missing"})
    assert problem.path == "security.jwt.secret"
    assert problem.source == "environment M9M_JWT_SECRET_FILE"
    assert "/missing" in problem.found


def test_a_secret_and_its_file_are_one_too_many(problems: Problems, folder: Path) -> None:
    (folder / "jwt").write_text("s" * 32)
    (problem,) = problems(environ={"M9M_JWT_SECRET": "s" * 32, "M9M_JWT_SECRET_FILE": "jwt"})
    assert problem.found == "both M9M_JWT_SECRET and M9M_JWT_SECRET_FILE are set"


def test_an_empty_variable_gives_way_to_the_file(loading: Load, folder: Path) -> None:
    (folder / "jwt").write_text("s" * 32)
    loaded = loading(environ={"M9M_JWT_SECRET": "", "M9M_JWT_SECRET_FILE": "jwt"})
    assert loaded.settings.security.jwt.secret == SecretStr("s" * 32)


def test_two_names_of_one_setting_must_agree(loading: Load, problems: Problems) -> None:
    assert loading(environ={"M9M_PORT": "1", "M9M_SERVER_PORT": "1"}).settings.server.port == 1
    (problem,) = problems(environ={"M9M_PORT": "1", "M9M_SERVER_PORT": "2"})
    assert problem.path == "server.port"
    assert problem.found == "both M9M_SERVER_PORT and M9M_PORT are set"


# --- n8n


def test_n8n_names_are_read_where_ours_are_absent(loading: Load, folder: Path) -> None:
    n8n = {"N8N_ENCRYPTION_KEY": "n" * 32, "N8N_HOST": "n8n.example.com", "N8N_PORT": "5678"}
    loaded = loading(environ=n8n)
    assert loaded.settings.credentials.encryption_key == SecretStr("n" * 32)
    assert loaded.settings.server.host == "n8n.example.com"
    assert loaded.settings.server.port == 5678
    assert loaded.sources["server.port"] == "environment N8N_PORT"
    (folder / ".env").write_text(
        f"M9M_ENCRYPTION_KEY={'m' * 32}\nM9M_HOST=m9m\nM9M_SERVER_PORT=1\n"
    )
    loaded = loading(environ=n8n)
    assert loaded.settings.credentials.encryption_key == SecretStr("m" * 32)
    assert loaded.settings.server.host == "m9m"
    assert loaded.settings.server.port == 1


def test_n8n_port_overrides_the_file_and_its_key_only_stands_in(
    loading: Load, folder: Path
) -> None:
    (folder / "config.yaml").write_text(
        f"credentials: {{encryption_key: {'f' * 32}}}\nserver: {{port: 1}}\n"
    )
    loaded = loading(environ={"N8N_ENCRYPTION_KEY": "n" * 32, "N8N_PORT": "2"})
    assert loaded.settings.credentials.encryption_key == SecretStr("f" * 32)
    assert loaded.settings.server.port == 2


def test_n8n_key_has_to_meet_our_rules_and_has_a_file_form(
    loading: Load, problems: Problems, folder: Path
) -> None:
    (problem,) = problems(environ={"N8N_ENCRYPTION_KEY": "short"})
    assert problem.source == "environment N8N_ENCRYPTION_KEY"
    (folder / "key").write_text("k" * 32)
    loaded = loading(environ={"N8N_ENCRYPTION_KEY_FILE": "key"})
    assert loaded.settings.credentials.encryption_key == SecretStr("k" * 32)


def test_other_names_of_n8n_are_nobodys_business(loading: Load) -> None:
    assert loading(environ={"N8N_PROTOCOL": "http", "N8N_PORTS": "x"}).warnings == ()


# --- unknown names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("M9M_JWT_SECRT", "M9M_JWT_SECRET"),
        ("M9M_JWT_SECRET_FIL", "M9M_JWT_SECRET_FILE"),
        ("M9M_HOSTS", "M9M_HOST"),
        ("M9M_CONFG", "M9M_CONFIG"),
        ("M9M_SECURITY_CORS_ALLOWED_ORIGNS", "M9M_SECURITY_CORS_ALLOWED_ORIGINS"),
        ("M9M_SECURITY_CORS_MAX_AEG", "M9M_SECURITY_CORS_MAX_AGE"),
        ("M9M_CORS_MAX_AGE", "M9M_SECURITY_CORS_MAX_AGE"),
        ("M9M_RATE_LIMIT_ENABLED", "M9M_PERFORMANCE_RATE_LIMIT_ENABLED"),
        ("M9M_API_KEYS_ENABLED", "M9M_SECURITY_API_KEYS_ENABLED"),
        ("M9M_DEFAULT_ACCESS", "M9M_SECURITY_DEFAULT_ACCESS"),
        ("M9M_TRUSTED_PROXIES", "M9M_SERVER_TRUSTED_PROXIES"),
        ("M9M_HTTPS", "M9M_SERVER_HTTPS"),
        ("M9M_REDIS_URL", "M9M_PERFORMANCE_RATE_LIMIT_REDIS_URL"),
        ("M9M_PREVIOUS_KEYS", "M9M_CREDENTIALS_PREVIOUS_KEYS"),
        ("M9M_CORS_ORIGINS", "M9M_SECURITY_CORS_ALLOWED_ORIGINS"),
        ("M9M_CORS_ORIGNS", "M9M_SECURITY_CORS_ALLOWED_ORIGINS"),
    ],
)
def test_a_name_near_a_known_one_stops_the_start(problems: Problems, name: str, meant: str) -> None:
    (problem,) = problems(environ={name: "hidden"})
    assert str(problem) == f"{name} (from environment): not a setting; did you mean {meant}?"


def test_a_name_in_a_message_has_no_control_characters(problems: Problems, loading: Load) -> None:
    (problem,) = problems(environ={"M9M_DEV\x1b[2J_MODE": "1"})
    assert problem.path == r"M9M_DEV\x1b[2J_MODE"
    warnings = loading(environ={"M9M_QUEUE_\x1b": "1", "M9M_ELSE\x9b": "1"}).warnings
    assert not any("\x1b" in warning or "\x9b" in warning for warning in warnings)


@pytest.mark.parametrize("name", ["M9M_API_URL", "M9M_API_KEY", "M9M_SOMETHING", "M9M_", "M9M_é"])
def test_any_other_unknown_name_is_a_warning(loading: Load, name: str) -> None:
    loaded = loading(environ={name: "hidden"})
    assert loaded.warnings == (f"environment: {name} is not a setting",)
    assert loaded.settings == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("M9M_TEST_REDIS_URL", "redis://"),
        ("M9M_CONFIG", ""),
        ("M9M_PORT", "tcp://10.0.0.1:80"),
        ("M9M_SERVER_PORT", "tcp://10.0.0.1:80"),
        ("N8N_PORT", "tcp://10.0.0.1:80"),
        ("M9M_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("M9M_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("M9M_PORT_80_TCP_PORT", "80"),
        ("M9M_PORT_53_UDP_PROTO", "udp"),
        ("M9M_SERVICE_HOST", "10.0.0.1"),
        ("M9M_SERVICE_PORT", "80"),
        ("M9M_SERVICE_PORT_HTTP", "80"),
        ("M9M_API_SERVICE_HOST", "10.0.0.1"),
        ("M9M_API_PORT", "tcp://10.0.0.1:80"),
        ("M9M_API_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("m9m_port", "7"),
        ("OTHER_PORT", "x"),
    ],
)
def test_service_links_and_test_names_are_passed_over_in_silence(
    loading: Load, name: str, value: str
) -> None:
    loaded = loading(environ={name: value})
    assert loaded.settings == Settings()
    assert loaded.warnings == ()


def test_a_service_link_beside_our_own_port_does_no_harm(loading: Load) -> None:
    environ = {"M9M_PORT": "tcp://10.0.0.1:80", "M9M_SERVER_PORT": "9000"}
    assert loading(environ=environ).settings.server.port == 9000


def test_what_is_of_use_to_m9m_alone_is_passed_over_with_one_line(loading: Load) -> None:
    environ = {
        "M9M_LOG_LEVEL": "debug",
        "M9M_QUEUE_TYPE": "redis",
        "M9M_METRICS_PORT": "9090",
        "M9M_POSTGRES_PASSWORD": "hidden",
        "M9M_SERVER_READ_TIMEOUT": "1s",
        "M9M_DATABASE_POSTGRES_HOST": "db",
    }
    (warning,) = loading(environ=environ).warnings
    assert warning.startswith("environment: ignored settings that only m9m uses: M9M_")
    assert "hidden" not in warning
    assert all(name in warning for name in environ)


def test_values_keep_their_bytes_or_are_refused(problems: Problems) -> None:
    undecodable = "s" * 40 + "\udcff"
    found = problems(
        environ={
            "M9M_JWT_SECRET": undecodable,
            "M9M_HOST": undecodable,
            "M9M_SECURITY_HEADERS_REFERRER_POLICY": undecodable,
            "M9M_SECURITY_CORS_ALLOWED_ORIGINS": undecodable,
            "M9M_SECURITY_JWT_EXPIRATION": undecodable,
            "M9M_SERVER_WORKERS": undecodable,
            "M9M_DEV_MODE": undecodable,
            "M9M_SERVER_HTTPS": undecodable,
            "M9M_DATABASE_URL": undecodable,
        }
    )
    assert len(found) == 9
    for problem in found:
        str(problem).encode()


def test_the_flat_keys_of_app_config_follow_the_same_rules(
    loading: Load, problems: Problems
) -> None:
    config: dict[Any, Any] = {5: "x", "M9M_SOMETHING": object(), "M9M_LOG_LEVEL": "x"}
    assert loading(app_config=config).warnings == (
        "app.config: M9M_SOMETHING is not a setting",
        "app.config: ignored settings that only m9m uses: M9M_LOG_LEVEL",
    )
    (problem,) = problems(app_config={"M9M_JWT_SECRTE": "x"})
    assert problem.source == "app.config"
