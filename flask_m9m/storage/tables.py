"""The database's tables and column types; every table's name begins with `m9m_`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

from .records import moment

metadata = MetaData()  # describes the tables for queries; `migrations/` creates them


class Moment(TypeDecorator[datetime]):
    """A time, stored as seconds since the epoch, which no database's time zone affects."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:
        return None if value is None else value.timestamp()

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else moment(value)


class Names(TypeDecorator[frozenset[str]]):
    """Scopes or roles, stored as a sorted JSON array."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Iterable[str] | None, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(sorted(value))

    def process_result_value(self, value: Any, dialect: Dialect) -> frozenset[str] | None:
        return None if value is None else frozenset(json.loads(value))


class Document(TypeDecorator[dict[str, Any]]):
    """A JSON object, stored as text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> dict[str, Any] | None:
        return None if value is None else dict(json.loads(value))


changes = Table(
    "m9m_changes",
    metadata,
    # SQLite assigns ids automatically only to this type. Without AUTOINCREMENT it may reuse the
    # highest id once that row is deleted.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("mark", BigInteger, nullable=False),
    Column("topic", String(16), nullable=False),
    Column("name", String(255), nullable=False),
    Column("changed_at", Moment, nullable=False),
    sqlite_autoincrement=True,
)

users = Table(
    "m9m_users",
    metadata,
    Column("username", String(255), primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("scopes", Names, nullable=False),
    Column("roles", Names, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("created_at", Moment, nullable=False),
)

api_keys = Table(
    "m9m_api_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("family", String(36), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("name", String(255), nullable=False),
    Column("owner", String(255), nullable=False, index=True),
    Column("scopes", Names, nullable=False),
    Column("roles", Names, nullable=False),
    Column("rate_limit", Text),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("rotated_at", Moment),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment),
    Column("made_by", String(36), index=True),
)

sessions = Table(
    "m9m_sessions",
    metadata,
    Column("sid", String(36), primary_key=True),
    Column("subject", String(255), nullable=False, index=True),
    Column("scopes", Names),
    Column("roles", Names),
    Column("claims", Document, nullable=False),
    Column("current", String(36), nullable=False),
    Column("previous", String(36)),
    Column("rotated_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("ends_at", Moment, nullable=False, index=True),
    Column("revoked_at", Moment),
)

revocations = Table(
    "m9m_revocations",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("version", BigInteger),
    Column("revoked_at", Moment, nullable=False),
    Column("expires_at", Moment, index=True),
)

credentials = Table(
    "m9m_credentials",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("type", String(64), nullable=False),
    Column("owner", String(255), nullable=False, index=True),
    Column("resolve", Boolean, nullable=False),
    Column("envelope", Text, nullable=False),
    # The beginning of the envelope: the cipher and the key id.
    Column("sealed_with", String(16), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    sqlite_with_rowid=False,  # stored in order of ids, as a rotation reads them
)

canaries = Table(
    "m9m_canaries",
    metadata,
    Column("key_id", String(8), primary_key=True),
    Column("envelope", Text, nullable=False),
)

known_addresses = Table(
    "m9m_known_addresses",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("account", LargeBinary(32), nullable=False, index=True),
    Column("seen_at", Moment, nullable=False, index=True),
)

# Only `seq` has an index. Each further one would cost as much as writing the row, and searches of
# the trail may be slow.
audit_events = Table(
    "m9m_audit",
    metadata,
    # SQLite's own row number, which it keeps an integer even where other columns take any type.
    Column(
        "seq",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("at", BigInteger, nullable=False),  # microseconds since the epoch
    Column("event", String(64), nullable=False),
    Column("outcome", String(64), nullable=False),
    Column("request_id", String(128)),
    Column("subject", String(255)),
    Column("scheme", String(64)),
    Column("address", String(64)),
    Column("method", String(32)),
    Column("route", String(255)),
    Column("target", String(255)),
    Column("details", Text),
    Column("mac", LargeBinary(32), nullable=False),
)

audit_ends = Table(
    "m9m_audit_ends",
    metadata,
    Column("name", String(4), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    Column("seal", LargeBinary(32), nullable=False),
)

audit_keys = Table(
    "m9m_audit_keys",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("envelope", Text, nullable=False),
)
