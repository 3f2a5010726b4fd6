# SPDX-License-Identifier: Apache-2.0
"""Add the evidence on whether an absence, an identity and a clock are to be trusted.

An ended record no longer owns its upstream ID, and events may be about the account.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_LIVE = "status NOT IN ('terminated', 'released')"


def upgrade() -> None:
    """Alter the tables."""
    with op.batch_alter_table("instances") as table:
        table.drop_constraint("uq_instances_upstream_id", type_="unique")
        table.add_column(
            sa.Column("origin", sa.String(16), server_default="created", nullable=False)
        )
        table.add_column(sa.Column("confirmed_at", sa.BigInteger()))
        table.add_column(sa.Column("upstream_created_at", sa.BigInteger()))
        table.add_column(sa.Column("released_at", sa.BigInteger()))
        table.add_column(sa.Column("identity_told_at", sa.BigInteger()))
        table.add_column(
            sa.Column("deleted_again", sa.Integer(), server_default=sa.text("0"), nullable=False)
        )
        table.add_column(sa.Column("late_call", sa.String(16)))
        table.add_column(sa.Column("late_call_at", sa.BigInteger()))
        table.add_column(sa.Column("obs_unlisted_since", sa.BigInteger()))
        table.add_column(
            sa.Column(
                "obs_unlisted_count", sa.Integer(), server_default=sa.text("0"), nullable=False
            )
        )
        table.add_column(
            sa.Column(
                "obs_unmarked_count", sa.Integer(), server_default=sa.text("0"), nullable=False
            )
        )
    op.create_index(
        "uq_instances_live_upstream_id",
        "instances",
        ["upstream_id"],
        unique=True,
        sqlite_where=sa.text(_LIVE),
        postgresql_where=sa.text(_LIVE),
    )
    op.create_index("ix_instances_upstream_id", "instances", ["upstream_id"])
    # Older versions adopted instances only by the reply or by the marker, so they are confirmed.
    op.execute(
        "UPDATE instances SET confirmed_at = COALESCE(bought_at, created_at)"
        " WHERE upstream_id IS NOT NULL"
    )

    op.add_column(
        "attempts", sa.Column("image", sa.String(500), server_default=sa.text("''"), nullable=False)
    )
    op.add_column(
        "attempts",
        sa.Column("key_digest", sa.String(64), server_default=sa.text("''"), nullable=False),
    )
    op.add_column("attempts", sa.Column("clock_offset", sa.BigInteger()))

    op.add_column("listings", sa.Column("whole_at", sa.BigInteger()))
    op.add_column(
        "listings",
        sa.Column("incomplete_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.execute("UPDATE listings SET whole_at = complete_at")

    for name in ("events", "webhook_lines", "deliveries"):
        with op.batch_alter_table(name) as table:
            table.alter_column("instance_id", existing_type=sa.String(40), nullable=True)
    op.create_index(
        "uq_webhook_lines_account_webhook_id",
        "webhook_lines",
        ["webhook_id"],
        unique=True,
        sqlite_where=sa.text("instance_id IS NULL"),
        postgresql_where=sa.text("instance_id IS NULL"),
    )

    # The next listing fills the new table.
    op.drop_table("unmanaged_instances")
    op.create_table(
        "unmanaged_instances",
        sa.Column("upstream_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("marker", sa.String(32), nullable=False),
        sa.Column("attempt_known", sa.Boolean(), nullable=False),
        sa.Column("orphan", sa.Boolean(), nullable=False),
        sa.Column("hourly_price", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger()),
        sa.Column("region", sa.String(255), nullable=False),
        sa.Column("product_id", sa.String(255), nullable=False),
        sa.Column("product_name", sa.String(255), nullable=False),
        sa.Column("gpu_num", sa.Integer()),
        sa.Column("rootfs_size", sa.Integer()),
        sa.Column("billing_mode", sa.String(16), nullable=False),
        sa.Column("cluster_id", sa.String(255), nullable=False),
        sa.Column("image", sa.String(500), nullable=False),
        sa.PrimaryKeyConstraint("upstream_id", name="pk_unmanaged_instances"),
    )
    op.create_table(
        "listed_instances",
        sa.Column("upstream_id", sa.String(255), nullable=False),
        sa.Column("first_listed_at", sa.BigInteger(), nullable=False),
        sa.Column("orphan_at", sa.BigInteger()),
        sa.Column("dismissed_at", sa.BigInteger()),
        sa.Column("deleted_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("upstream_id", name="pk_listed_instances"),
    )


def downgrade() -> None:
    """Undo the changes; events about the account and their messages are lost."""
    op.drop_table("listed_instances")
    op.drop_table("unmanaged_instances")
    op.create_table(
        "unmanaged_instances",
        sa.Column("upstream_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("upstream_id", name="pk_unmanaged_instances"),
    )
    op.drop_index("uq_webhook_lines_account_webhook_id", table_name="webhook_lines")
    op.execute(
        "DELETE FROM delivery_attempts WHERE delivery_id IN"
        " (SELECT id FROM deliveries WHERE instance_id IS NULL)"
    )
    for name in ("deliveries", "webhook_lines", "events"):
        op.execute(f"DELETE FROM {name} WHERE instance_id IS NULL")  # noqa: S608 - constants
        with op.batch_alter_table(name) as table:
            table.alter_column("instance_id", existing_type=sa.String(40), nullable=False)
    op.drop_column("listings", "incomplete_count")
    op.drop_column("listings", "whole_at")
    op.drop_column("attempts", "clock_offset")
    op.drop_column("attempts", "key_digest")
    op.drop_column("attempts", "image")
    op.drop_index("ix_instances_upstream_id", table_name="instances")
    op.drop_index("uq_instances_live_upstream_id", table_name="instances")
    op.execute("UPDATE instances SET upstream_id = NULL WHERE status IN ('terminated', 'released')")
    with op.batch_alter_table("instances") as table:
        for column in (
            "obs_unmarked_count",
            "obs_unlisted_count",
            "obs_unlisted_since",
            "late_call_at",
            "late_call",
            "deleted_again",
            "identity_told_at",
            "released_at",
            "upstream_created_at",
            "confirmed_at",
            "origin",
        ):
            table.drop_column(column)
        table.create_unique_constraint("uq_instances_upstream_id", ["upstream_id"])
