# SPDX-License-Identifier: Apache-2.0
"""Create the tables of webhooks: receivers, lines, messages and attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("standing", sa.Boolean(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", sa.Text(), server_default="[]", nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("secret_sealed", sa.LargeBinary()),
        sa.Column("previous_secret_sealed", sa.LargeBinary()),
        sa.Column("previous_secret_until", sa.BigInteger()),
        sa.Column("failing_since", sa.BigInteger()),
        sa.Column("failed_at", sa.BigInteger()),
        sa.Column("off_at", sa.BigInteger()),
        sa.Column("off_reason", sa.String(20)),
        sa.Column("deleted_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
    )
    op.create_index(
        "ix_webhooks_listening",
        "webhooks",
        ["id"],
        sqlite_where=sa.text("standing = 1 AND enabled = 1"),
        postgresql_where=sa.text("standing AND enabled"),
    )
    op.create_index("ix_webhooks_created_at_id", "webhooks", ["created_at", "id"])

    op.create_table(
        "webhook_lines",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("instance_id", sa.String(40), nullable=False),
        sa.Column("webhook_id", sa.String(40), nullable=False),
        sa.Column("host", sa.String(300), nullable=False),
        sa.Column("token", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_try_at", sa.BigInteger()),
        sa.Column("lease_until", sa.BigInteger()),
        sa.Column("spared_until", sa.BigInteger()),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_webhook_lines_instance_id"
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name="fk_webhook_lines_webhook_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_lines"),
    )
    op.create_index(
        "uq_webhook_lines_instance_id_webhook_id",
        "webhook_lines",
        ["instance_id", "webhook_id"],
        unique=True,
    )
    op.create_index(
        "ix_webhook_lines_webhook_id_next_try_at", "webhook_lines", ["webhook_id", "next_try_at"]
    )
    op.create_index(
        "ix_webhook_lines_due",
        "webhook_lines",
        ["next_try_at"],
        sqlite_where=sa.text("next_try_at IS NOT NULL"),
        postgresql_where=sa.text("next_try_at IS NOT NULL"),
    )

    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("line_id", sa.String(40), nullable=False),
        sa.Column("webhook_id", sa.String(40), nullable=False),
        sa.Column("instance_id", sa.String(40), nullable=False),
        sa.Column("event_sequence", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.ForeignKeyConstraint(["line_id"], ["webhook_lines.id"], name="fk_deliveries_line_id"),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], name="fk_deliveries_webhook_id"),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_deliveries_instance_id"
        ),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["events.sequence"], name="fk_deliveries_event_sequence"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
    )
    op.create_index(
        "uq_deliveries_webhook_id_event_sequence",
        "deliveries",
        ["webhook_id", "event_sequence"],
        unique=True,
    )
    op.create_index(
        "ix_deliveries_instance_id_event_sequence", "deliveries", ["instance_id", "event_sequence"]
    )
    waiting = sa.text("status = 'pending'")
    op.create_index(
        "ix_deliveries_waiting",
        "deliveries",
        ["line_id", "event_sequence"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_index(
        "ix_deliveries_oldest",
        "deliveries",
        ["created_at"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )

    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", sa.String(40), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("status_code", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.Column("response", sa.Text()),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name="fk_delivery_attempts_delivery_id"
        ),
        sa.PrimaryKeyConstraint("delivery_id", "number", name="pk_delivery_attempts"),
    )


def downgrade() -> None:
    """Drop the tables."""
    for name in ("delivery_attempts", "deliveries", "webhook_lines", "webhooks"):
        op.drop_table(name)
