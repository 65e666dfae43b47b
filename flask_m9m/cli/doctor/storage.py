"""Checks of storage: the database, its migrations, Redis, connections without TLS, and clocks."""

from __future__ import annotations

import re
import shlex
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ...storage.engine import url_of
from ...wsgi.server.bind_address import is_loopback
from .backends import Unreachable
from .dependencies import KNOWN_ON
from .findings import Finding, Kind, Severity
from .subject import Subject, finds

UNREACHABLE = Kind(
    "database-unreachable",
    Severity.HIGH,
    "the database cannot be used",
    "<reason>; without the database, API keys, users and revocations cannot be read, and requests "
    "that need them are refused with 503 (ASVS 16.5.2)",
    "start the server, or correct database.url; then check: flask m9m db status",
)
SCHEMA = Kind(
    "database-schema",
    Severity.MEDIUM,
    "the database schema is of another version",
    "the database schema is <found>, this version of flask-m9m needs <newest>: stored data cannot "
    "be used",
    "flask m9m db upgrade; if the database is newer than the package: pip install --upgrade "
    "flask-m9m",
)
READABLE = Kind(
    "database-readable",
    Severity.MEDIUM,
    "other users of the machine can read or write the SQLite file",
    "other users of the machine can read password hashes, user names and encrypted credentials, or "
    "write to the file and so become any user (ASVS 13.3.2)",
    "chmod 600 <file>*",
)
INCLUDE_NAME = Kind(
    "include-name-missing",
    Severity.MEDIUM,
    "the app's Alembic environment does not exclude the m9m_ tables",
    "alembic revision --autogenerate proposes to drop every m9m_ table of the shared database: "
    "such a migration deletes users, API keys and credentials",
    "in <file>: from flask_m9m.storage import include_name, then context.configure(…, "
    "include_name=include_name)",
)
REDIS = Kind(
    "redis-unreachable",
    Severity.MEDIUM,
    "Redis cannot be used",
    "<reason>; without Redis, the machines do not count rate limits together (ASVS 16.5.2)",
    "start the server, or correct performance.rate_limit.redis_url; to do without Redis: "
    "performance: {rate_limit: {storage: shared}}",
)
PLAIN = Kind(
    "backend-plain",
    Severity.LOW,
    "a server on another machine is used without TLS",
    "the connection to another machine has no TLS: an attacker on the network path can read and "
    "change passwords and data (ASVS 12.3.1, 12.3.2)",
    "<fix>",
)
CLOCK = Kind(
    "clock-off",
    Severity.MEDIUM,
    "a clock is wrong",
    "<reason>: tokens expire and revocations take effect at the wrong time (RFC 7519 §4.1.4; ASVS "
    "9.2.1, 16.2.2)",
    "synchronize the clocks, on both machines: timedatectl set-ntp true, or run chronyd",
)

_MOST_SECONDS_OFF = 5.0
_ENVIRONMENTS = ("migrations/env.py", "alembic/env.py")
_VERIFIED = ("verify-full", "verify-ca", "require")
_INCLUDED = re.compile(r"^[^#\n]*\binclude_(name|object)\b", re.MULTILINE)


@finds(UNREACHABLE, SCHEMA)
def database(subject: Subject) -> Iterator[Finding]:
    """Examine whether the database can be used; a file that does not exist yet can."""
    answer = subject.database
    if isinstance(answer, Unreachable):
        yield UNREACHABLE.at("database", reason=answer.reason)
        return
    server = not answer.where.startswith("sqlite")
    if answer.version != answer.newest and (answer.version is not None or server):
        found = answer.version or "missing"
        yield SCHEMA.at(f"database ({answer.where})", found=found, newest=answer.newest)


@finds(READABLE)
def database_file(subject: Subject) -> Iterator[Finding]:
    """Find a SQLite file that other users of the machine can read or write."""
    file = subject.sqlite_file
    if file is None:
        return
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return
    if mode & 0o006:
        yield READABLE.at(str(file), file=shlex.quote(str(file)))


@finds(INCLUDE_NAME)
def own_migrations(subject: Subject) -> Iterator[Finding]:
    """Examine the app's own migrations, if it shares its database with us."""
    if not subject.state.shares_database:
        return
    for folder in dict.fromkeys((Path(subject.app.root_path), subject.folder)):
        for name in _ENVIRONMENTS:
            file = folder / name
            try:
                text = file.read_text("utf-8", "replace")
            except OSError:
                continue
            if not _INCLUDED.search(text):
                yield INCLUDE_NAME.at(str(file), file=file)
                return


@finds(REDIS)
def redis(subject: Subject) -> Iterator[Finding]:
    """Examine whether Redis answers, if it stores the rate limits."""
    answer = subject.redis_ahead
    if isinstance(answer, Unreachable):
        yield REDIS.at(subject.at("performance.rate_limit.redis_url"), reason=answer.reason)


@finds(PLAIN)
def plain_connections(subject: Subject) -> Iterator[Finding]:
    """Find connections to other machines without TLS."""
    limiting = subject.settings.performance.rate_limit
    if limiting.storage == "redis" and limiting.redis_url is not None:
        url = urlsplit(limiting.redis_url.get_secret_value())
        encrypted = url.scheme.startswith(("rediss", "valkeys", "unix"))
        if not encrypted and _is_remote(url.netloc):
            where = subject.at("performance.rate_limit.redis_url")
            yield PLAIN.at(where, fix="write rediss:// instead of redis:// in the URL")
    url = urlsplit(url_of(subject.settings.database, subject.app.instance_path))
    if url.scheme.startswith("postgres") and not subject.state.shares_database:
        mode = parse_qs(url.query).get("sslmode", ["prefer"])[-1]
        if mode not in _VERIFIED and _is_remote(url.netloc):
            yield PLAIN.at(subject.at("database.url"), fix="add ?sslmode=verify-full to the URL")


@finds(CLOCK)
def clocks(subject: Subject) -> Iterator[Finding]:
    """Compare this machine's clock with those of the servers, and with this package's date."""
    if subject.now < KNOWN_ON.timestamp():
        today = f"{datetime.fromtimestamp(subject.now, UTC):%Y-%m-%d}"
        reason = f"the clock shows {today}, before this package was made ({KNOWN_ON:%Y-%m-%d})"
        yield CLOCK.at("this machine", reason=reason)
    answer = subject.database
    ahead = None if isinstance(answer, Unreachable) else answer.ahead
    if ahead is not None and abs(ahead) > _MOST_SECONDS_OFF:
        yield CLOCK.at("the database's machine", reason=_describe_offset(ahead))
    theirs = subject.redis_ahead
    if isinstance(theirs, float) and abs(theirs) > _MOST_SECONDS_OFF:
        yield CLOCK.at("Redis's machine", reason=_describe_offset(theirs))


CHECKS = (database, database_file, own_migrations, redis, plain_connections, clocks)


def _describe_offset(ahead: float) -> str:
    return f"the clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"


def _is_remote(netloc: str) -> bool:
    """Tell whether any host of a URL is another machine."""
    hosts = netloc.rpartition("@")[2].split(",")
    names = [urlsplit(f"//{host}").hostname for host in hosts]
    return any(name and not is_loopback(name) for name in names)
