# SPDX-License-Identifier: Apache-2.0
"""Drop three columns of `listings` that each listing wrote and no code read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop them; the server reads `complete_at`, `whole_at` and `incomplete_count`."""
    for name in ("complete", "instances", "unmanaged"):
        op.drop_column("listings", name)


def downgrade() -> None:
    """Add them with values that the next listing replaces."""
    op.add_column(
        "listings",
        sa.Column("complete", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    for name in ("instances", "unmanaged"):
        op.add_column(
            "listings", sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)
        )
