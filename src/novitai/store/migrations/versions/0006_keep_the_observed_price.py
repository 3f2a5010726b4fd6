# SPDX-License-Identifier: Apache-2.0
"""Store the price that Novita charges for an instance, in addition to its purchase price."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; the next listing fills it."""
    op.add_column("instances", sa.Column("obs_hourly_price", sa.BigInteger()))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("instances", "obs_hourly_price")
