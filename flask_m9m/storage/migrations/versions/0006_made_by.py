"""Record which API key made an API key, so that they can be revoked together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0006"
down_revision = "0005"


def upgrade(op: Operations) -> None:
    """Add the column."""
    op.add_column("m9m_api_keys", sa.Column("made_by", sa.String(36)))
    op.create_index("ix_m9m_api_keys_made_by", "m9m_api_keys", ["made_by"])
