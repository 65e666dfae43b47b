"""Names of m9m and n8n: short environment variables, and m9m settings that are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "M9M_JWT_SECRET": "security.jwt.secret",
        "M9M_JWT_EXPIRATION": "security.jwt.expiration",
        "M9M_ENCRYPTION_KEY": "credentials.encryption_key",
        "M9M_HOST": "server.host",
        "M9M_PORT": "server.port",
        "M9M_DEV_MODE": "development.enabled",
        "M9M_DB_TYPE": "database.type",
        "M9M_DB_PATH": "database.sqlite.path",
        "M9M_POSTGRES_URL": "database.postgres.url",
    }
)

N8N_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "N8N_ENCRYPTION_KEY": "credentials.encryption_key",
        "N8N_HOST": "server.host",
        "N8N_PORT": "server.port",
    }
)

_POSTGRES_PARTS = (
    "host",
    "port",
    "database",
    "user",
    "password",
    "ssl_mode",
    "max_connections",
    "max_idle_connections",
    "connection_lifetime",
)

IGNORED = frozenset(
    {
        "queue",
        "logging",
        "execution",
        "monitoring",
        "webhooks",
        "compatibility",
        "templates",
        "email",
        "external_services",
        "features",
        "server.read_timeout",
        "server.write_timeout",
        "server.idle_timeout",
        "database.mysql",
        "database.mongodb",
        "credentials.vault",
        "performance.cache",
        "performance.connection_pool",
        "development.debug",
        "development.pprof",
        "development.hot_reload",
        "development.verbose",
        *(f"database.postgres.{part}" for part in _POSTGRES_PARTS),
    }
)
"""Paths of settings that only m9m uses; everything below them is ignored too."""

_PASSED_OVER_PREFIXES = (
    *("M9M_" + path.upper().replace(".", "_") for path in IGNORED),
    *(f"M9M_POSTGRES_{part.upper()}" for part in _POSTGRES_PARTS),
    "M9M_LOG",
    "M9M_METRICS",
    "M9M_TRACING",
    "M9M_AI",
    "M9M_COPILOT",
    "M9M_OTEL",
    "M9M_AGENTS",
    "M9M_MAX_WORKERS",
    "M9M_WORKSPACE",
    "M9M_ENABLE_PPROF",
    "M9M_BASE_URL",
    "M9M_ENV",
)


def is_ignored(variable: str) -> bool:
    """Tell whether only m9m uses an environment variable, so that it is ignored."""
    return any(
        variable == prefix or variable.startswith(f"{prefix}_") for prefix in _PASSED_OVER_PREFIXES
    )
