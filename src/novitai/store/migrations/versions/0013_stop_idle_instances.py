# SPDX-License-Identifier: Apache-2.0
"""Store the auto-stop setting of instances, and what is known about their use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_INDEX = "ix_instances_sample_due_at"


def upgrade() -> None:
    """Add the columns; no existing instance has the setting."""
    op.add_column("instances", sa.Column("auto_stop", sa.Text()))
    op.add_column(
        "instances",
        sa.Column("auto_stop_memory", sa.Text(), server_default="{}", nullable=False),
    )
    op.add_column(
        "instances",
        sa.Column("auto_stop_state", sa.String(length=16), server_default="armed", nullable=False),
    )
    op.add_column("instances", sa.Column("auto_stops_at", sa.BigInteger()))
    op.add_column("instances", sa.Column("sample_due_at", sa.BigInteger()))
    condition = sa.text("sample_due_at IS NOT NULL")
    op.create_index(
        _INDEX, "instances", ["sample_due_at"], sqlite_where=condition, postgresql_where=condition
    )


def downgrade() -> None:
    """Drop them; idle instances are no longer stopped."""
    op.drop_index(_INDEX, "instances")
    for name in (
        "sample_due_at",
        "auto_stops_at",
        "auto_stop_state",
        "auto_stop_memory",
        "auto_stop",
    ):
        op.drop_column("instances", name)
