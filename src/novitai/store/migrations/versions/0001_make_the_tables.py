# SPDX-License-Identifier: Apache-2.0
"""Create the tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scopes", sa.String(40), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.Column("last_used_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("api_key_id", sa.String(40), nullable=False),
        sa.Column("route", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("body_digest", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("api_key_id", "route", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])

    op.create_table(
        "installation",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_installation"),
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("product_name", sa.String(255), nullable=False),
        sa.Column("template_id", sa.String(255), nullable=False),
        sa.Column("gpu_num", sa.Integer(), nullable=False),
        sa.Column("rootfs_size", sa.Integer(), nullable=False),
        sa.Column("region", sa.String(255), nullable=False),
        sa.Column("billing_mode", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("product_id", sa.String(255)),
        sa.Column("cluster_id", sa.String(255)),
        sa.Column("region_fallback", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("max_hourly_price", sa.BigInteger()),
        sa.Column("hourly_price", sa.BigInteger()),
        sa.Column("webhook_url", sa.Text()),
        sa.Column("launch_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("upstream_id", sa.String(255)),
        sa.Column("bought_at", sa.BigInteger()),
        sa.Column("ever_ran", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("first_ready_at", sa.BigInteger()),
        sa.Column("ready_at", sa.BigInteger()),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("stopped_at", sa.BigInteger()),
        sa.Column("terminated_at", sa.BigInteger()),
        sa.Column("last_used_at", sa.BigInteger()),
        sa.Column("acted_at", sa.BigInteger()),
        sa.Column("failed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text()),
        sa.Column("error_at", sa.BigInteger()),
        sa.Column("obs_status", sa.String(64)),
        sa.Column("obs_at", sa.BigInteger()),
        sa.Column("obs_error", sa.Text()),
        sa.Column("obs_port_mappings", sa.Text(), server_default="[]", nullable=False),
        sa.Column("obs_ssh", sa.Text()),
        sa.Column("obs_jupyter", sa.Text()),
        sa.Column("obs_web_terminal", sa.Text()),
        sa.Column("obs_credentials_sealed", sa.LargeBinary()),
        sa.Column("obs_spot_status", sa.String(64)),
        sa.Column("obs_spot_reclaim_at", sa.BigInteger()),
        sa.Column("obs_digest", sa.String(32)),
        sa.Column("obs_missing_since", sa.BigInteger()),
        sa.Column("obs_missing_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("obs_gone", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_instances"),
        sa.UniqueConstraint("upstream_id", name="uq_instances_upstream_id"),
    )
    op.create_index("ix_instances_created_at_id", "instances", ["created_at", "id"])
    op.create_index("ix_instances_name", "instances", ["name"])
    op.create_index(
        "ix_instances_product_ready",
        "instances",
        ["product_name", "created_at"],
        sqlite_where=sa.text("first_ready_at IS NOT NULL"),
        postgresql_where=sa.text("first_ready_at IS NOT NULL"),
    )
    op.create_index("ix_instances_status_created_at", "instances", ["status", "created_at"])

    op.create_table(
        "leases",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )
    op.create_table(
        "unmanaged_instances",
        sa.Column("upstream_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("upstream_id", name="pk_unmanaged_instances"),
    )
    op.create_table(
        "listings",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("complete_at", sa.BigInteger()),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("unmanaged", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_listings"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_table(
        "events",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("instance_id", sa.String(40), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("transaction_id", sa.BigInteger()),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name="fk_events_instance_id"),
        sa.PrimaryKeyConstraint("sequence", name="pk_events"),
        sa.UniqueConstraint("id", name="uq_events_id"),
    )
    op.create_index("ix_events_instance_id_sequence", "events", ["instance_id", "sequence"])
    if op.get_bind().dialect.name == "postgresql":
        # With it a reader knows whether an event with a lower number may still be uncommitted.
        op.execute(
            "ALTER TABLE events ALTER COLUMN transaction_id "
            "SET DEFAULT pg_current_xact_id()::text::bigint"
        )

    op.create_table(
        "operations",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("instance_id", sa.String(40)),
        sa.Column("phase", sa.String(20), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("wake", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("done", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("outcome", sa.String(20)),
        sa.Column("deadline_at", sa.BigInteger()),
        sa.Column("next_step_at", sa.BigInteger()),
        sa.Column("lease_until", sa.BigInteger()),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text()),
        sa.Column("memory", sa.Text(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_operations_instance_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_operations"),
    )
    op.create_index(
        "ix_operations_due",
        "operations",
        ["kind", "next_step_at"],
        sqlite_where=sa.text("done = 0"),
        postgresql_where=sa.text("NOT done"),
    )
    op.create_index("ix_operations_instance_id", "operations", ["instance_id"])
    op.create_index(
        "uq_operations_running",
        "operations",
        ["instance_id"],
        unique=True,
        sqlite_where=sa.text("done = 0"),
        postgresql_where=sa.text("NOT done"),
    )

    op.create_table(
        "attempts",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("operation_id", sa.String(40), nullable=False),
        sa.Column("instance_id", sa.String(40), nullable=False),
        sa.Column("upstream_name", sa.String(255), nullable=False),
        sa.Column("product_id", sa.String(255), nullable=False),
        sa.Column("cluster_id", sa.String(255), nullable=False),
        sa.Column("region", sa.String(255), nullable=False),
        sa.Column("price", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("send_by", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("upstream_id", sa.String(255)),
        sa.Column("reason", sa.String(64)),
        sa.Column("message", sa.Text()),
        sa.Column("unseen_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("unseen_since", sa.BigInteger()),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name="fk_attempts_instance_id"),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["operations.id"], name="fk_attempts_operation_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.UniqueConstraint("upstream_name", name="uq_attempts_upstream_name"),
    )
    op.create_index("ix_attempts_instance_id", "attempts", ["instance_id"])
    op.create_index(
        "ix_attempts_unsettled",
        "attempts",
        ["created_at"],
        sqlite_where=sa.text("state IN ('sent', 'unknown')"),
        postgresql_where=sa.text("state IN ('sent', 'unknown')"),
    )


def downgrade() -> None:
    """Drop the tables."""
    for name in (
        "attempts",
        "operations",
        "events",
        "workers",
        "unmanaged_instances",
        "listings",
        "leases",
        "instances",
        "installation",
        "idempotency_keys",
        "api_keys",
    ):
        op.drop_table(name)
