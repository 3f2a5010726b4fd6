# SPDX-License-Identifier: Apache-2.0
"""Store the tags of instances, who created them, and who caused each operation and event.

Older records have no tags, and it is not known who caused older operations and events.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, and the table by which lists are filtered."""
    op.add_column(
        "instances", sa.Column("tags", sa.Text(), server_default=sa.text("'{}'"), nullable=False)
    )
    op.add_column("instances", sa.Column("created_by_key_id", sa.String(40)))
    op.add_column("instances", sa.Column("created_by_name", sa.String(100)))
    op.add_column("operations", sa.Column("actor", sa.Text()))
    op.add_column("events", sa.Column("actor", sa.Text()))
    op.create_table(
        "instance_tags",
        sa.Column("instance_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("value", sa.String(256), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_instance_tags_instance_id"
        ),
        sa.PrimaryKeyConstraint("instance_id", "name", name="pk_instance_tags"),
    )
    op.create_index(
        "ix_instance_tags_listed", "instance_tags", ["name", "value", "created_at", "instance_id"]
    )


def downgrade() -> None:
    """Drop them; tags and actors are lost."""
    op.drop_table("instance_tags")
    op.drop_column("events", "actor")
    op.drop_column("operations", "actor")
    for name in ("created_by_name", "created_by_key_id", "tags"):
        op.drop_column("instances", name)
