"""Configurations of m9m itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_m9m.settings import Settings
from flask_m9m.settings.m9m import IGNORED, N8N_NAMES, SHORT_NAMES
from flask_m9m.settings.paths import LEAVES, SECTIONS

from .conftest import Load, Problems

M9M_CONFIG = """
server:
  host: "0.0.0.0"
  port: 8080
  read_timeout: "30s"
  write_timeout: "60s"
  idle_timeout: "120s"
  trusted_proxies: ["127.0.0.1", "10.0.0.0/8"]
  tls: {enabled: false}
database:
  type: "postgres"
  postgres: {host: localhost, port: 5432, user: m9m, password: hidden, ssl_mode: disable}
  sqlite: {path: "./data/m9m.db"}
queue: {type: sqlite, max_workers: 4, sqlite: {path: "./data/queue.db"}}
logging: {level: info, format: json}
monitoring: {metrics: {enabled: true, port: 9090}}
execution: {timeout: "1h", retry: {enabled: true, max_attempts: 3}}
webhooks: {path: /webhook}
security:
  jwt: {enabled: true, secret: "${JWT_SECRET:-0123456789abcdef0123456789abcdef}"}
  basic_auth: {enabled: false, username: admin, password: changeme}
credentials: {storage: database, vault: {enabled: false}}
performance:
  cache: {enabled: true}
  rate_limit: {enabled: true, requests_per_minute: 60, burst: 10}
development: {debug: true, hot_reload: true}
"""


def test_a_configuration_of_m9m_works_unchanged_with_one_line(loading: Load, folder: Path) -> None:
    (folder / "config.yaml").write_text(M9M_CONFIG)
    loaded = loading()
    passed_over, doubt = loaded.warnings
    assert passed_over.startswith("config.yaml: ignored settings that only m9m uses: ")
    for path in ("queue", "logging", "server.read_timeout", "database.postgres.password"):
        assert path in passed_over
    assert "hidden" not in passed_over
    assert "database.postgres.url" in doubt
    assert loaded.settings.server.host == "0.0.0.0"
    assert loaded.settings.database.sqlite.path == "./data/m9m.db"
    assert loaded.settings.development.enabled is False
    assert loaded.settings.performance.rate_limit.enabled is True


def test_only_m9ms_own_names_are_passed_over(problems: Problems) -> None:
    found = problems(
        {
            "queues": {},
            "auth": {"enabled": True},
            "server": {"read_timeouts": "1s"},
            "security": {"rateLimit": {}, "encryptionKey": "x"},
        }
    )
    assert [problem.path for problem in found] == [
        "auth",
        "queues",
        "security.encryptionKey",
        "security.rateLimit",
        "server.read_timeouts",
    ]


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("secrity", "security"),
        ("security.core", "security.cors"),
        ("security.cors.allowed_orgins", "security.cors.allowed_origins"),
        ("security.cors.allowedOrigins", "security.cors.allowed_origins"),
        ("security.rate_limit", "performance.rate_limit"),
        ("jwt", "security.jwt"),
        ("server.tls.certfile", "server.tls.cert_file"),
        ("security.jwt.expire", "security.jwt.expiration"),
    ],
)
def test_the_nearest_key_is_shown_for_a_typo(problems: Problems, path: str, meant: str) -> None:
    (problem,) = problems(flags={path: 1})
    assert (problem.path, problem.accepted) == (path, f"did you mean {meant}?")


def test_a_key_like_no_other_is_to_be_removed(problems: Problems) -> None:
    (problem,) = problems({"zzzzzz": 1})
    assert problem.accepted == "remove it"


@pytest.mark.parametrize("key", [5, None, True, (1, 2), 1.5])
def test_keys_are_text(problems: Problems, key: object) -> None:
    (problem,) = problems({"security": {key: 1}})
    assert problem.path == "security"
    assert problem.accepted == "keys must be text"


def test_a_hostile_key_is_shown_short_and_escaped(problems: Problems) -> None:
    for problem in problems({"a\r\n\x1b[31m": 1, "b" * 100_000: 1, "\udcff": 1}):
        assert len(str(problem)) < 300
        assert str(problem).isprintable()


def test_the_names_agree_with_the_settings() -> None:
    assert set(SHORT_NAMES.values()) | set(N8N_NAMES.values()) <= set(LEAVES)
    assert not IGNORED & (set(LEAVES) | SECTIONS)
    for path in IGNORED:
        section = path.rpartition(".")[0]
        assert section == "" or section in SECTIONS


def test_a_mapping_of_m9ms_is_passed_over_whatever_it_holds(loading: Load) -> None:
    settings = loading({"queue": {"${UNSET}": ["${UNSET}"]}, "logging": None}).settings
    assert settings == Settings()
