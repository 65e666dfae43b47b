"""Settings of the database."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .section import Section
from .types import Boolean, Period, SecretUrl, Text


class SQLiteSettings(Section):
    """`database.sqlite`: the SQLite database file."""

    path: Text | None = Field(default=None, description="The path of the database file.")


class PostgresSettings(Section):
    """`database.postgres`: the PostgreSQL server."""

    url: SecretUrl | None = Field(default=None, description="The URL of the PostgreSQL database.")


class DatabaseSettings(Section):
    """`database`: the database for keys, users, sessions, credentials and the audit trail."""

    url: SecretUrl | None = Field(
        default=None, description="Any SQLAlchemy URL; overrides the other keys."
    )
    type: Literal["sqlite", "postgres"] = Field(
        default="sqlite", description="The database if no url is set."
    )
    upgrade: Boolean = Field(
        default=False, description="Create and upgrade the tables of a server when they are needed."
    )
    pool_size: int = Field(
        default=5,
        ge=1,
        le=1_000,
        description="Connections of a process to PostgreSQL; for a short time thrice as many.",
    )
    pool_timeout: Period = Field(
        default=2.0, description="How long a thread waits for a connection."
    )
    sqlite: SQLiteSettings = SQLiteSettings()
    postgres: PostgresSettings = PostgresSettings()
