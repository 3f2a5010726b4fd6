# SPDX-License-Identifier: Apache-2.0
"""Keep Novita's bills by owner and day, how far they were read, and which events were told."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; the first reading fills them with the last 31 days."""
    op.create_table(
        "bill_readings",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("window_ms", sa.BigInteger(), nullable=False),
        sa.Column("pass_since", sa.BigInteger()),
        sa.Column("pass_end", sa.BigInteger()),
        sa.Column("next_since", sa.BigInteger()),
        sa.Column("next_category", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("comparable", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("reached", sa.BigInteger()),
        sa.Column("billed_until", sa.BigInteger()),
        sa.Column("clock_offset", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_bill_readings"),
    )
    op.create_table(
        "billed_days",
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("upstream_id", sa.String(length=255), nullable=False),
        sa.Column("category", sa.String(length=32), nullable=False),
        sa.Column("hours", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("day", "upstream_id", "category", name="pk_billed_days"),
    )
    op.create_table(
        "cost_findings",
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("upstream_id", sa.String(length=255), nullable=False),
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("told_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("type", "upstream_id", "day", name="pk_cost_findings"),
    )
    op.create_index("ix_cost_findings_told_at", "cost_findings", ["told_at"])


def downgrade() -> None:
    """Drop them; bills are no longer compared."""
    op.drop_index("ix_cost_findings_told_at", "cost_findings")
    for name in ("cost_findings", "billed_days", "bill_readings"):
        op.drop_table(name)
