# SPDX-License-Identifier: Apache-2.0
"""Keep quotes, and note on an instance the quote that binds its purchase."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; existing instances were created without a quote."""
    op.create_table(
        "quotes",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("product_name", sa.String(length=255), nullable=False),
        sa.Column("template_id", sa.String(length=255), nullable=False),
        sa.Column("gpu_num", sa.Integer(), nullable=False),
        sa.Column("rootfs_size", sa.Integer(), nullable=False),
        sa.Column("region", sa.String(length=255), nullable=False),
        sa.Column("billing_mode", sa.String(length=16), nullable=False),
        sa.Column("region_fallback", sa.Boolean(), nullable=False),
        sa.Column("offers", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quotes"),
    )
    op.create_index("ix_quotes_expires_at", "quotes", ["expires_at"])
    op.add_column("instances", sa.Column("quote_id", sa.String(length=40)))
    op.create_index(
        "ix_instances_quote_id",
        "instances",
        ["quote_id"],
        sqlite_where=sa.text("quote_id IS NOT NULL"),
        postgresql_where=sa.text("quote_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop it; creates that wait for capacity lose their quoted limits."""
    op.drop_index("ix_instances_quote_id", "instances")
    op.drop_column("instances", "quote_id")
    op.drop_index("ix_quotes_expires_at", "quotes")
    op.drop_table("quotes")
