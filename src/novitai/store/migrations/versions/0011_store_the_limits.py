# SPDX-License-Identifier: Apache-2.0
"""Store the limits of instances, when they next take effect, and since when an instance runs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_INDEXED = ("review_due_at", "limit_fired_at")
_STOPS = sa.text("kind = 'stop' AND outcome = 'succeeded'")


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("obs_run_began_at", sa.BigInteger()),
        sa.Column("obs_exited_at", sa.BigInteger()),
        sa.Column("obs_purge_at", sa.BigInteger()),
        sa.Column("limits", sa.Text()),
        sa.Column("protected_reason", sa.Text()),
        sa.Column("stops_at", sa.BigInteger()),
        sa.Column("stop_reason", sa.String(32)),
        sa.Column("unenforced", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("limit_memory", sa.Text(), server_default="{}", nullable=False),
        sa.Column("limit_fired_at", sa.BigInteger()),
        sa.Column("review_due_at", sa.BigInteger()),
    ]


def upgrade() -> None:
    """Add the columns and the indexes; the next listing fills the observed ones."""
    for column in _columns():
        op.add_column("instances", column)
    for name in _INDEXED:
        condition = sa.text(f"{name} IS NOT NULL")
        op.create_index(
            f"ix_instances_{name}",
            "instances",
            [name],
            sqlite_where=condition,
            postgresql_where=condition,
        )
    op.create_index(
        "ix_instances_unenforced",
        "instances",
        ["id"],
        sqlite_where=sa.text("unenforced"),
        postgresql_where=sa.text("unenforced"),
    )
    op.create_index(
        "ix_operations_stops",
        "operations",
        ["updated_at"],
        sqlite_where=_STOPS,
        postgresql_where=_STOPS,
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_operations_stops", "operations")
    op.drop_index("ix_instances_unenforced", "instances")
    for name in _INDEXED:
        op.drop_index(f"ix_instances_{name}", "instances")
    for column in reversed(_columns()):
        op.drop_column("instances", column.name)
