# SPDX-License-Identifier: Apache-2.0
"""Store the limits of API keys, and those that instances inherit from them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_INDEX = "ix_instances_created_by_key_id"
_BUDGETS_INDEX = "ix_budgets_key_id"


def upgrade() -> None:
    """Add the columns; no existing key has limits."""
    op.add_column("api_keys", sa.Column("limits", sa.Text()))
    op.add_column("instances", sa.Column("inherited_limits", sa.Text()))
    op.create_index(_INDEX, "instances", ["created_by_key_id"])
    op.add_column(
        "budgets",
        sa.Column("key_limit", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.create_index(_BUDGETS_INDEX, "budgets", ["key_id"])


def downgrade() -> None:
    """Drop them; the budgets of keys are budgets like others."""
    op.drop_index(_BUDGETS_INDEX, "budgets")
    op.drop_column("budgets", "key_limit")
    op.drop_index(_INDEX, "instances")
    op.drop_column("instances", "inherited_limits")
    op.drop_column("api_keys", "limits")
