# SPDX-License-Identifier: Apache-2.0
"""Name the secret key that each API key's digest was made with, so that it can be rotated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; null stands for the only secret key that there was before."""
    op.add_column("api_keys", sa.Column("secret_id", sa.String(length=16)))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("api_keys", "secret_id")
