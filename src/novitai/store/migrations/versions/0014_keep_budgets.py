# SPDX-License-Identifier: Apache-2.0
"""Keep budgets, and what the first hour of each run reserves of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_INDEX = "ix_instances_reserved_at"


def upgrade() -> None:
    """Create the table; existing instances reserve nothing."""
    op.create_table(
        "budgets",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.String(length=8), nullable=False),
        sa.Column("tz", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=40)),
        sa.Column("tag_name", sa.String(length=63)),
        sa.Column("tag_value", sa.String(length=256)),
        sa.Column("alert_at", sa.Text(), nullable=False),
        sa.Column("on_limit", sa.String(length=8), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("told_since", sa.BigInteger()),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("exceeded", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budgets"),
    )
    for name in ("reserved_rate", "reserved_length", "reserved_at"):
        op.add_column("instances", sa.Column(name, sa.BigInteger()))
    condition = sa.text("reserved_at IS NOT NULL")
    op.create_index(
        _INDEX, "instances", ["reserved_at"], sqlite_where=condition, postgresql_where=condition
    )


def downgrade() -> None:
    """Drop them; nothing is refused for lack of a budget any more."""
    op.drop_index(_INDEX, "instances")
    for name in ("reserved_at", "reserved_length", "reserved_rate"):
        op.drop_column("instances", name)
    op.drop_table("budgets")
