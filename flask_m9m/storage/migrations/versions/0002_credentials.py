"""Create the tables of stored credentials and of the encryption keys' canaries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0002"
down_revision = "0001"


def upgrade(op: Operations) -> None:
    """Create the tables."""
    op.create_table(
        "m9m_credentials",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("resolve", sa.Boolean, nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.Column("sealed_with", sa.String(16), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sqlite_with_rowid=False,  # stored in order of ids, as a rotation reads them
    )
    op.create_index("m9m_credentials_owner", "m9m_credentials", ["owner"])
    op.create_index("m9m_credentials_sealed_with", "m9m_credentials", ["sealed_with", "id"])
    op.create_table(
        "m9m_canaries",
        sa.Column("key_id", sa.String(8), primary_key=True),
        sa.Column("envelope", sa.Text, nullable=False),
    )
