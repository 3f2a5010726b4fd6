# SPDX-License-Identifier: Apache-2.0
"""Note when each upstream ID was last listed, and with which marker."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what was listed before counts as listed now, so that no record goes early.

    Null in `last_listed_at` stands for a row of an older release that still runs.
    """
    op.add_column("listed_instances", sa.Column("last_listed_at", sa.BigInteger()))
    op.add_column("listed_instances", sa.Column("attempt_id", sa.String(16)))
    listed = sa.table(
        "listed_instances",
        sa.column("upstream_id", sa.String),
        sa.column("last_listed_at", sa.BigInteger),
        sa.column("attempt_id", sa.String),
    )
    op.execute(listed.update().values(last_listed_at=round(time.time() * 1000)))
    # A marker ends with the 16 characters of the attempt's ID.
    connection = op.get_bind()
    of_ours = "SELECT upstream_id, marker FROM unmanaged_instances WHERE attempt_known"
    for upstream_id, marker in connection.execute(sa.text(of_ours)).all():
        connection.execute(
            listed.update()
            .where(listed.c.upstream_id == upstream_id)
            .values(attempt_id=marker[-16:] or None)
        )
    op.create_index(
        "ix_listed_instances_attempt_id",
        "listed_instances",
        ["attempt_id"],
        sqlite_where=sa.text("attempt_id IS NOT NULL"),
        postgresql_where=sa.text("attempt_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop the columns."""
    op.drop_index("ix_listed_instances_attempt_id", "listed_instances")
    op.drop_column("listed_instances", "attempt_id")
    op.drop_column("listed_instances", "last_listed_at")
