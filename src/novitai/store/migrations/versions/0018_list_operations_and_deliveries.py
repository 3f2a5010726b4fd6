# SPDX-License-Identifier: Apache-2.0
"""Index operations and deliveries in the order in which all of them are listed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_DEAD = sa.text("status = 'dead'")


def upgrade() -> None:
    """Create the indexes."""
    op.create_index("ix_operations_created_at_id", "operations", ["created_at", "id"])
    op.create_index("ix_deliveries_event_sequence_id", "deliveries", ["event_sequence", "id"])
    op.create_index(
        "ix_deliveries_dead",
        "deliveries",
        ["event_sequence", "id"],
        sqlite_where=_DEAD,
        postgresql_where=_DEAD,
    )


def downgrade() -> None:
    """Drop the indexes."""
    op.drop_index("ix_deliveries_dead", "deliveries")
    op.drop_index("ix_deliveries_event_sequence_id", "deliveries")
    op.drop_index("ix_operations_created_at_id", "operations")
