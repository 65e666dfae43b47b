"""Create the tables of the audit trail, of its two ends, and of its key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0003"
down_revision = "0002"


def upgrade(op: Operations) -> None:
    """Create the tables."""
    op.create_table(
        "m9m_audit",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("outcome", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(128)),
        sa.Column("subject", sa.String(255)),
        sa.Column("scheme", sa.String(64)),
        sa.Column("address", sa.String(64)),
        sa.Column("method", sa.String(32)),
        sa.Column("route", sa.String(255)),
        sa.Column("target", sa.String(255)),
        sa.Column("details", sa.Text),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
    )
    op.create_table(
        "m9m_audit_ends",
        sa.Column("name", sa.String(4), primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        sa.Column("seal", sa.LargeBinary(32), nullable=False),
    )
    op.create_table(
        "m9m_audit_keys",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("envelope", sa.Text, nullable=False),
    )
