# SPDX-License-Identifier: Apache-2.0
"""Keep the price that Novita charges for an instance, beside the price at which it was bought."""

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
    """Take it away."""
    op.drop_column("instances", "obs_hourly_price")
