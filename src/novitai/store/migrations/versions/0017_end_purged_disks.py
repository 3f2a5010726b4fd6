# SPDX-License-Identifier: Apache-2.0
"""Store when the disk of a stopped instance is purged, because it is not billed any more then."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_COLUMNS = ("expires_after", "expires_by")


def upgrade() -> None:
    """Add the columns; the next listing fills them, because it writes every row again."""
    for name in _COLUMNS:
        op.add_column("billing_spans", sa.Column(name, sa.BigInteger()))
    op.execute(sa.text("UPDATE instances SET obs_digest = NULL WHERE obs_digest IS NOT NULL"))


def downgrade() -> None:
    """Drop them."""
    for name in _COLUMNS:
        op.drop_column("billing_spans", name)
