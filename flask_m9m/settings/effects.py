"""Settings that are given but have no effect, because another one is off or says otherwise."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import Problem
from .models import Settings
from .paths import LEAVES, get

_LIMIT = "performance.rate_limit"
_SWITCHED = {
    "security.basic_auth.enabled": ("username", "password", "password_hash", "realm"),
    "security.jwt.cookie.enabled": ("same_site",),
    f"{_LIMIT}.enabled": ("requests_per_minute", "burst", "key"),
    "api.enabled": ("prefix",),
    "metrics.enabled": ("path", "allowed_networks"),
}
"""Switches that are off by default, with the settings beside each that depend on it."""

_OF_KEY = ("previous_keys", "cipher", "environment")


class Idle(NamedTuple):
    """Settings without an effect.

    Attributes:
        problems: those that stop the start.
        warnings: lines about those that do not, such as TLS files while TLS is off.
    """

    problems: list[Problem]
    warnings: list[str]


def find_idle(settings: Settings, given: Collection[str]) -> Idle:
    """Find settings that were given and have no effect.

    A switch that was given itself is the user's decision: what depends on it may wait there.

    Args:
        settings: the effective settings.
        given: the paths of the settings that a source gives.
    """
    set_paths = [path for path in given if get(settings, path) not in (None, ())]
    problems = [
        Problem(path, f"set, but without effect: {reason}", accepted)
        for path, reason, accepted in _idle(settings, set_paths, given)
    ]
    warnings = [
        f"{path} has no effect: {reason}" for path, reason in _waiting(settings, set_paths, given)
    ]
    return Idle(problems, warnings)


def _idle(
    settings: Settings, set_paths: Collection[str], given: Collection[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield each path, why it has no effect, and what to do."""
    for switch, names in _SWITCHED.items():
        if switch not in given and not get(settings, switch):
            for path in _beside(switch, names):
                if path in set_paths:
                    yield path, f"{switch} is false", f"set {switch}: true, or remove this"
    yield from _idle_jwt(settings, set_paths)
    yield from _idle_database(settings, set_paths, given)
    storage = settings.performance.rate_limit.storage
    if f"{_LIMIT}.redis_url" in set_paths and storage != "redis":
        accepted = f"set {_LIMIT}.storage: redis, or remove this"
        yield f"{_LIMIT}.redis_url", f"{_LIMIT}.storage is {storage}", accepted
    if settings.credentials.encryption_key is None:
        for path in (f"credentials.{name}" for name in _OF_KEY):
            if path in set_paths and not _is_default(settings, path):
                reason = "credentials.encryption_key is not set"
                yield path, reason, "set M9M_ENCRYPTION_KEY (run: flask m9m init), or remove this"


def _idle_jwt(settings: Settings, set_paths: Collection[str]) -> Iterator[tuple[str, str, str]]:
    jwt = settings.security.jwt
    if jwt.secret is not None or jwt.enabled is not None or settings.development.enabled:
        return
    for path in set_paths:
        own = path.startswith("security.jwt.") and not path.startswith("security.jwt.cookie.")
        if own and not _is_default(settings, path):
            accepted = "set M9M_JWT_SECRET (run: flask m9m init), or remove this"
            yield path, "JWT is off, because security.jwt.secret is not set", accepted


def _idle_database(
    settings: Settings, set_paths: Collection[str], given: Collection[str]
) -> Iterator[tuple[str, str, str]]:
    database = settings.database
    for path, type in (("database.sqlite.path", "sqlite"), ("database.postgres.url", "postgres")):
        if path not in set_paths:
            continue
        if database.url is not None:
            yield path, "database.url is set, and goes first", "remove one of the two"
        elif database.type != type and (type == "postgres" or "database.type" not in given):
            # A configuration of m9m may have both sections, and says which one counts.
            accepted = f"set database.type: {type}, or remove this"
            yield path, f"database.type is {database.type}", accepted


def _waiting(
    settings: Settings, set_paths: Collection[str], given: Collection[str]
) -> Iterator[tuple[str, str]]:
    server, limit = settings.server, settings.performance.rate_limit
    needs: list[tuple[bool, str, Mapping[str, Any] | Collection[str]]] = [
        (
            server.tls.enabled,
            "server.tls.enabled is false",
            ("server.tls.cert_file", "server.tls.key_file", "server.tls.min_version"),
        ),
        (
            bool(server.trusted_proxies),
            "server.trusted_proxies is empty",
            ("server.proxy_headers", "server.trust_forwarded_host"),
        ),
        (
            settings.api.enabled or "api.enabled" in given,
            "api.enabled is false",
            ("security.api_keys.max_per_owner", "credentials.max_per_owner"),
        ),
        (
            limit.storage == "redis",
            f"{_LIMIT}.storage is {limit.storage}",
            (f"{_LIMIT}.machines", f"{_LIMIT}.lease"),
        ),
        (
            limit.storage != "memory",
            f"{_LIMIT}.storage is memory",
            (f"{_LIMIT}.path",),
        ),
        (
            "database" in settings.audit.sinks,
            "audit.sinks has no database",
            ("audit.retention",),
        ),
    ]
    for met, reason, paths in needs:
        for path in paths:
            if not met and path in set_paths and not _is_default(settings, path):
                yield path, reason


def _beside(switch: str, names: Collection[str]) -> Iterator[str]:
    section = switch.rpartition(".")[0]
    return (f"{section}.{name}" for name in names)


def _is_default(settings: Settings, path: str) -> bool:
    return bool(get(settings, path) == LEAVES[path].default)
