"""Create the table of the addresses from which accounts signed in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0005"
down_revision = "0003"


def upgrade(op: Operations) -> None:
    """Create the table."""
    op.create_table(
        "m9m_known_addresses",
        sa.Column("digest", sa.LargeBinary(32), primary_key=True),
        sa.Column("account", sa.LargeBinary(32), nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
    )
    for column in ("account", "seen_at"):
        name = f"ix_m9m_known_addresses_{column}"
        op.create_index(name, "m9m_known_addresses", [column])
