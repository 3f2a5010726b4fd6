# SPDX-License-Identifier: Apache-2.0
"""Remove instances that ended long ago, and keep what the ledger and the markers need of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; null stands for an instance that was not removed."""
    op.add_column("instances", sa.Column("removed_at", sa.BigInteger()))


def downgrade() -> None:
    """Drop the column; removed instances are listed again, without their settings."""
    op.drop_column("instances", "removed_at")
