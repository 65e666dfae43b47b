"""Create the tables of users, API keys, sessions and revocations, and the change feed."""

from __future__ import annotations

import secrets
import time

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0001"
down_revision = None


def upgrade(op: Operations) -> None:
    """Create the tables, and the feed's first row."""
    changes = op.create_table(
        "m9m_changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("mark", sa.BigInteger, nullable=False),
        sa.Column("topic", sa.String(16), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("changed_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    first = {"mark": secrets.randbits(63), "topic": "begin", "name": "", "changed_at": time.time()}
    op.execute(changes.insert().values(first))
    op.create_table(
        "m9m_users",
        sa.Column("username", sa.String(255), primary_key=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "m9m_api_keys",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("family", sa.String(36), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("rate_limit", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("rotated_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
    )
    op.create_index("m9m_api_keys_digest", "m9m_api_keys", ["digest"], unique=True)
    op.create_index("m9m_api_keys_owner", "m9m_api_keys", ["owner"])
    op.create_table(
        "m9m_sessions",
        sa.Column("sid", sa.String(36), primary_key=True),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("scopes", sa.Text),
        sa.Column("roles", sa.Text),
        sa.Column("claims", sa.Text, nullable=False),
        sa.Column("current", sa.String(36), nullable=False),
        sa.Column("previous", sa.String(36)),
        sa.Column("rotated_at", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("ends_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
    )
    op.create_index("m9m_sessions_subject", "m9m_sessions", ["subject"])
    op.create_index("m9m_sessions_ends_at", "m9m_sessions", ["ends_at"])
    op.create_table(
        "m9m_revocations",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("version", sa.BigInteger),
        sa.Column("revoked_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
    )
    op.create_index("m9m_revocations_expires_at", "m9m_revocations", ["expires_at"])
