"""The names, types and defaults of every setting, and what each refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError

from flask_m9m.errors import ErrorFormat, Problem, SettingsError
from flask_m9m.settings import (
    PRESETS,
    Algorithm,
    CORSSettings,
    HeadersSettings,
    Settings,
    get,
    load,
)
from flask_m9m.settings.paths import LEAVES
from flask_m9m.settings.presets import HEADER_FIELDS

from .conftest import Load, Problems

DEFAULTS: dict[str, Any] = {
    "server.host": "127.0.0.1",
    "server.port": 8080,
    "server.workers": 2,
    "server.threads": 4,
    "server.https": "off",
    "server.trusted_proxies": (),
    "server.proxy_headers": "x-forwarded",
    "server.trust_forwarded_host": False,
    "server.allowed_networks": (),
    "server.tls.enabled": False,
    "server.tls.cert_file": None,
    "server.tls.key_file": None,
    "server.tls.min_version": "1.2",
    "server.limits.max_connections": 1_000,
    "server.limits.max_connections_per_address": 256,
    "server.limits.max_header_size": 16_384,
    "server.limits.max_headers": 100,
    "server.limits.max_body_size": 16_777_216,
    "server.limits.max_buffered_size": 268_435_456,
    "server.limits.min_body_rate": 500,
    "server.limits.max_form_memory_size": 500_000,
    "server.limits.max_form_parts": 1_000,
    "server.timeouts.header": 10.0,
    "server.timeouts.body": 20.0,
    "server.timeouts.request": 60.0,
    "server.timeouts.write": 30.0,
    "server.timeouts.keep_alive": 5.0,
    "server.timeouts.graceful": 30.0,
    "security.default_access": "public",
    "security.jwt.enabled": None,
    "security.jwt.secret": None,
    "security.jwt.previous_secrets": (),
    "security.jwt.algorithm": Algorithm.HS256,
    "security.jwt.expiration": 24 * 3600.0,
    "security.jwt.refresh_expiration": 168 * 3600.0,
    "security.jwt.refresh_max_age": 30 * 86400.0,
    "security.jwt.accept_untyped": True,
    "security.jwt.issuer": None,
    "security.jwt.audience": None,
    "security.jwt.leeway": 0.0,
    "security.jwt.cookie.enabled": False,
    "security.jwt.cookie.same_site": "Lax",
    "security.api_keys.enabled": True,
    "security.api_keys.max_per_owner": 100,
    "security.api_keys.header": "X-API-Key",
    "security.api_keys.prefix": "m9m_sk_",
    "security.basic_auth.enabled": False,
    "security.basic_auth.username": None,
    "security.basic_auth.password": None,
    "security.basic_auth.password_hash": None,
    "security.basic_auth.realm": "m9m",
    "security.lockout.enabled": True,
    "security.lockout.attempts": 10,
    "security.lockout.per": 60.0,
    "security.cors.enabled": True,
    "security.cors.allowed_origins": (),
    "security.cors.allowed_methods": ("GET", "POST", "PUT", "DELETE", "PATCH"),
    "security.cors.allowed_headers": ("Content-Type", "Authorization", "X-API-Key"),
    "security.cors.expose_headers": (
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "WWW-Authenticate",
    ),
    "security.cors.allow_credentials": False,
    "security.cors.max_age": 86400,
    "security.headers.enabled": True,
    "security.headers.preset": "api",
    "security.headers.x_content_type_options": "nosniff",
    "security.headers.x_frame_options": "DENY",
    "security.headers.x_xss_protection": "1; mode=block",
    "security.headers.content_security_policy": "<preset>",
    "security.headers.strict_transport_security": "<preset>",
    "security.headers.referrer_policy": "no-referrer",
    "security.headers.permissions_policy": "<preset>",
    "security.headers.cross_origin_opener_policy": "same-origin",
    "security.headers.cross_origin_resource_policy": "same-origin",
    "security.revocation.propagation": 1.0,
    "security.revocation.max_staleness": 30.0,
    "security.errors.format": ErrorFormat.M9M,
    "security.errors.all": False,
    "security.users.min_password_length": 8,
    "security.users.refuse_common": True,
    "credentials.encryption_key": None,
    "credentials.previous_keys": (),
    "credentials.cipher": "aes-256-gcm",
    "credentials.environment": (),
    "credentials.storage": "database",
    "credentials.max_per_owner": 1_000,
    "database.url": None,
    "database.upgrade": False,
    "database.pool_size": 5,
    "database.pool_timeout": 2.0,
    "database.type": "sqlite",
    "database.sqlite.path": None,
    "database.postgres.url": None,
    "performance.rate_limit.enabled": False,
    "performance.rate_limit.requests_per_minute": 60,
    "performance.rate_limit.burst": 10,
    "performance.rate_limit.key": "address",
    "performance.rate_limit.ipv6_prefix": 64,
    "performance.rate_limit.storage": "shared",
    "performance.rate_limit.path": None,
    "performance.rate_limit.machines": 1,
    "performance.rate_limit.redis_url": None,
    "performance.rate_limit.secret": None,
    "performance.rate_limit.lease": 1,
    "performance.rate_limit.on_storage_failure": "local",
    "performance.rate_limit.legacy_headers": True,
    "performance.rate_limit.shadow": False,
    "audit.enabled": True,
    "audit.sinks": ("log",),
    "audit.retention": 90 * 86400.0,
    "audit.omit": (),
    "api.enabled": False,
    "api.prefix": "/api/v1",
    "metrics.enabled": False,
    "metrics.path": "/metrics",
    "metrics.allowed_networks": (),
    "development.enabled": False,
}


def test_the_settings_and_their_defaults_are_these() -> None:
    assert {path: get(Settings(), path) for path in LEAVES} == DEFAULTS


def test_the_secrets_are_these() -> None:
    assert {path for path, leaf in LEAVES.items() if leaf.is_secret} == {
        "security.jwt.secret",
        "security.jwt.previous_secrets",
        "security.basic_auth.password",
        "security.basic_auth.password_hash",
        "credentials.encryption_key",
        "credentials.previous_keys",
        "database.url",
        "database.postgres.url",
        "performance.rate_limit.redis_url",
        "performance.rate_limit.secret",
    }


def test_the_defaults_are_valid_values() -> None:
    for path in LEAVES:
        value = get(Settings(), path)
        assert get(load(flags={path: value}, environ={}).settings, path) == value


def test_a_section_is_frozen_and_closed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().security.cors.max_age = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="max_agee"):
        CORSSettings.model_validate({"max_agee": 1})


WRONG: list[tuple[str, object, str]] = [
    ("server.host", "", "a host name or an address"),
    ("server.host", "http://localhost", "a host name or an address"),
    ("server.host", "127.0.0.1:8080", "a host name or an address"),
    ("server.host", "a b", "a host name or an address"),
    ("server.host", 5, "text"),
    ("server.port", 0, "a whole number from 1 to 65535"),
    ("server.port", 65536, "a whole number from 1 to 65535"),
    ("server.port", -1, "a whole number from 1 to 65535"),
    ("server.port", True, "a whole number from 1 to 65535"),
    ("server.port", 80.5, "a whole number from 1 to 65535"),
    ("server.port", "eighty", "a whole number from 1 to 65535"),
    ("server.port", "9" * 5_000, "a whole number from 1 to 65535"),
    ("server.port", 10**5_000, "a whole number from 1 to 65535"),
    ("server.port", float("inf"), "a whole number from 1 to 65535"),
    ("server.port", float("nan"), "a whole number from 1 to 65535"),
    ("server.port", [80], "a whole number from 1 to 65535"),
    ("server.workers", 0, "a whole number from 1"),
    ("server.https", "on", "'off', 'redirect' or 'refuse'"),
    ("server.https", True, "'off', 'redirect' or 'refuse'"),
    ("server.trusted_proxies", "10.0.0.1", "a list, such as [a, b]"),
    ("server.trusted_proxies", ["10.0.0.1/8"], 'write "10.0.0.0/8" for the network'),
    ("server.trusted_proxies", ["2001:db8::1/32"], 'write "2001:db8::/32" for the network'),
    ("server.trusted_proxies", ["proxy.internal"], "an address or a network"),
    ("server.trusted_proxies", ["fe80::1%eth0"], "an address or a network"),
    ("server.trusted_proxies", ["010.0.0.1"], "an address or a network"),
    ("server.trusted_proxies", [167772161], "text"),
    ("server.trusted_proxies", ["1" * 100_000], "an address or a network"),
    ("server.allowed_networks", ["unix"], "an address or a network"),
    ("server.tls.min_version", "1.1", "'1.2' or '1.3'"),
    ("server.tls.min_version", 1.1, "'1.2' or '1.3'"),
    ("server.tls.cert_file", "", "not empty"),
    ("server.tls.cert_file", "a\nb", "text without control characters"),
    ("security.jwt.enabled", 1, "true or false"),
    ("security.jwt.enabled", "maybe", "true or false"),
    ("security.jwt.algorithm", "none", "'HS256', 'HS384' or 'HS512'"),
    ("security.jwt.algorithm", "hs256", "'HS256', 'HS384' or 'HS512'"),
    ("security.jwt.algorithm", "RS256", "'HS256', 'HS384' or 'HS512'"),
    ("security.jwt.expiration", "soon", 'such as "90s"'),
    ("security.jwt.expiration", 0, "longer than zero"),
    ("security.jwt.expiration", True, 'such as "90s"'),
    ("security.jwt.leeway", "61s", 'at most "60s"'),
    ("security.jwt.issuer", "", "not empty"),
    ("security.api_keys.header", "X API Key", "the name of a header"),
    ("security.api_keys.header", "X-Kéy", "the name of a header"),
    ("security.api_keys.header", "authorization", "the name of a header without another use"),
    ("security.api_keys.prefix", "", "letters, digits"),
    ("security.api_keys.prefix", "a b", "letters, digits"),
    ("security.basic_auth.username", "a:b", "without a colon"),
    ("security.basic_auth.realm", 'm"9m', "printable ASCII"),
    ("security.basic_auth.realm", "m\\9m", "printable ASCII"),
    ("security.basic_auth.realm", "m\r\n9m", "printable ASCII"),
    ("security.basic_auth.realm", "", "printable ASCII"),
    ("security.lockout.attempts", 0, "a whole number from 1"),
    ("security.lockout.per", "0s", "longer than zero"),
    ("security.cors.allowed_origins", "https://a", "a list, such as [a, b]"),
    ("security.cors.allowed_origins", {"https://a": 1}, "a list, such as [a, b]"),
    ("security.cors.allowed_origins", ["https://a.example/"], 'write "https://a.example"'),
    ("security.cors.allowed_origins", [r"https://.*\.example"], "an origin as browsers send it"),
    ("security.cors.allowed_origins", ["(a+)+$"], "an origin as browsers send it"),
    ("security.cors.allowed_origins", [None], "text"),
    ("security.cors.allowed_methods", ["get"], 'write "GET"'),
    ("security.cors.allowed_methods", ["*"], "the name of a method"),
    ("security.cors.allowed_methods", ["GET, POST"], "the name of a method"),
    ("security.cors.allowed_methods", [""], "the name of a method"),
    ("security.cors.allowed_headers", ["X\r\nY"], "the name of a header"),
    ("security.cors.expose_headers", ["X:Y"], "the name of a header"),
    ("security.cors.max_age", -1, "a whole number from 0 to 86400"),
    ("security.cors.max_age", 86401, "a whole number from 0 to 86400"),
    ("security.cors.max_age", "1h", "a whole number from 0 to 86400"),
    ("security.headers.preset", "strict", "'api' or 'web'"),
    ("security.headers.referrer_policy", "a\r\nSet-Cookie: b", "printable Latin-1"),
    ("security.headers.referrer_policy", "a\x00", "printable Latin-1"),
    ("security.headers.referrer_policy", "a\tb", "printable Latin-1"),
    ("security.headers.referrer_policy", "a\x85b", "printable Latin-1"),
    ("security.headers.referrer_policy", "€", "printable Latin-1"),
    ("security.headers.x_frame_options", False, "null to switch it off"),
    ("security.headers.x_frame_options", ["DENY"], "null to switch it off"),
    ("security.errors.format", "xml", "'m9m' or 'problem'"),
    ("credentials.cipher", "aes-128-cbc", "'aes-256-gcm' or 'fernet'"),
    ("credentials.environment", ["M9M_JWT_SECRET"], "other than M9M_* and N8N_*"),
    ("credentials.environment", ["n8n_encryption_key"], "other than M9M_* and N8N_*"),
    ("credentials.environment", ["A-B"], "the name of an environment variable"),
    ("credentials.storage", "vault", "'database' or 'memory'"),
    ("database.url", "localhost", "a URL"),
    ("database.type", "mysql", "'sqlite' or 'postgres'"),
    ("performance.rate_limit.burst", 0, "a whole number from 1"),
    ("performance.rate_limit.ipv6_prefix", 129, "a whole number from 1 to 128"),
    ("performance.rate_limit.key", "ip", "'address' or 'identity'"),
    ("performance.rate_limit.redis_url", "localhost:6379", "a URL"),
    ("audit.sinks", ["syslog"], "'log' or 'database'"),
    ("api.prefix", "api", "a path without a slash at its end"),
    ("api.prefix", "/api/", "a path without a slash at its end"),
    ("development.enabled", 2, "true or false"),
]


@pytest.mark.parametrize(("path", "value", "accepted"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_value_is_refused_with_what_is_accepted(
    problems: Problems, path: str, value: object, accepted: str
) -> None:
    (problem,) = problems(flags={path: value})
    assert problem.path.partition("[")[0] == path
    assert accepted in problem.accepted
    assert problem.source == "command line"
    assert len(str(problem)) < 500
    assert str(problem).isprintable()


@pytest.mark.parametrize(
    ("path", "value", "read"),
    [
        ("server.host", "::", "::"),
        ("server.host", "my_service", "my_service"),
        ("server.port", "8080", 8080),
        ("server.https", False, "off"),
        ("server.trusted_proxies", ["10.0.0.0/8", "::1", "unix"], ("10.0.0.0/8", "::1", "unix")),
        ("server.tls.min_version", 1.2, "1.2"),
        ("security.jwt.leeway", "60s", 60.0),
        ("security.jwt.expiration", 3600, 3600.0),
        ("security.cors.max_age", 0, 0),
        ("security.cors.allowed_origins", ["null"], ("null",)),
        ("security.cors.allowed_origins", ("*",), ("*",)),
        ("security.headers.x_xss_protection", 0, "0"),
        ("security.headers.referrer_policy", " origin ", "origin"),
        ("security.headers.referrer_policy", "", None),
        ("database.url", "sqlite://", SecretStr("sqlite://")),
        ("database.url", "postgresql+psycopg://db/m9m", SecretStr("postgresql+psycopg://db/m9m")),
        ("development.enabled", "yes", True),
    ],
)
def test_values_are_read_as_they_are_meant(
    loading: Load, path: str, value: object, read: object
) -> None:
    assert get(loading(flags={path: value}).settings, path) == read


def test_null_is_no_value_of_what_cannot_be_absent(problems: Problems) -> None:
    cors = {"allowed_origins": None, "max_age": None}
    found = problems({"security": {"cors": cors, "jwt": {"expiration": None, "secret": None}}})
    assert [(problem.path, problem.found) for problem in found] == [
        ("security.cors.allowed_origins", "null"),
        ("security.cors.max_age", "null"),
        ("security.jwt.expiration", "null"),
    ]


def test_a_path_object_is_a_path(loading: Load, folder: Any) -> None:
    loaded = loading({"database": {"sqlite": {"path": folder / "m9m.db"}}})
    assert loaded.settings.database.sqlite.path == str(folder / "m9m.db")


def test_every_origin_with_credentials_stops_the_start(problems: Problems) -> None:
    cors = {"allowed_origins": ["*"], "allow_credentials": True}
    (problem,) = problems({"security": {"cors": cors}})
    assert problem.path == "security.cors.allow_credentials"
    assert 'allowed_origins is ["*"]' in problem.accepted
    (problem,) = problems({"security": {"cors": cors}, "development": {"enabled": True}})
    with pytest.raises(ValidationError):
        CORSSettings.model_validate({**dict(CORSSettings()), **cors})


def test_debug_mode_opens_nothing(loading: Load) -> None:
    loaded = loading(environ={"FLASK_DEBUG": "1"}, app_config={"DEBUG": True})
    assert loaded.settings.security.cors.allowed_origins == ()
    assert loaded.settings.development.enabled is False


# --- headers


def test_headers_not_given_are_the_presets() -> None:
    for preset in ("api", "web"):
        effective = HeadersSettings.model_validate({"preset": preset}).effective()
        assert set(effective) == set(HEADER_FIELDS.values())
        assert effective["Content-Security-Policy"] == PRESETS[preset]["content_security_policy"]
        assert effective["Strict-Transport-Security"] == "max-age=63072000; includeSubDomains"


def test_a_header_that_is_given_or_switched_off_is_not_the_presets() -> None:
    headers = HeadersSettings.model_validate(
        {"content_security_policy": "default-src 'self'", "permissions_policy": None}
    )
    assert headers.effective()["Content-Security-Policy"] == "default-src 'self'"
    assert "Permissions-Policy" not in headers.effective()


def test_another_preset_laid_over_a_section_changes_what_was_not_given() -> None:
    section = HeadersSettings.model_validate({"permissions_policy": None})
    over = HeadersSettings.model_validate({**dict(section), "preset": "web"})
    assert over.effective()["Content-Security-Policy"] == PRESETS["web"]["content_security_policy"]
    assert "Permissions-Policy" not in over.effective()


def test_every_header_of_the_settings_has_a_field() -> None:
    assert set(HEADER_FIELDS) == set(HeadersSettings.model_fields) - {"enabled", "preset"}


# --- hostile values

_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.binary(max_size=4),
        st.dates(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*LEAVES, "server", "nowhere"]), _VALUES, max_size=6))
def test_no_value_raises_anything_but_settings_errors(values: dict[str, Any]) -> None:
    assert_problems_can_be_printed(lambda: load(flags=values, environ={}))


@given(
    st.recursive(
        _VALUES,
        lambda inner: st.dictionaries(
            st.sampled_from(["server", "security", "jwt", "secret", "cors", "queue", "x"]), inner
        ),
    )
)
def test_no_tree_raises_anything_but_settings_errors(tree: Any) -> None:
    assert_problems_can_be_printed(
        lambda: load({"security": tree}, environ={}, app_config={"M9M": tree})
    )


def assert_problems_can_be_printed(loading: Callable[[], object]) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        loading()
    except SettingsError as error:
        problems = error.problems
    assert all(str(problem).isprintable() for problem in problems)


def test_every_setting_has_a_description() -> None:
    def undescribed(model: type[BaseModel], before: str = "") -> Iterator[str]:
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from undescribed(inner, f"{before}{name}.")
            elif not field.description:
                yield f"{before}{name}"

    assert not list(undescribed(Settings))
