# SPDX-License-Identifier: Apache-2.0
"""Create the tables of the job queue, which only PostgreSQL needs."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Install PgQueuer's tables; on SQLite the sweep and signals within the process are enough."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    sql = Path(__file__).parent.with_name("pgqueuer.sql").read_text(encoding="utf-8")
    connection.exec_driver_sql(sql)


def downgrade() -> None:
    """Drop the tables."""
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute("DROP FUNCTION IF EXISTS fn_pgqueuer_changed CASCADE")
    for name in ("pgqueuer_log", "pgqueuer_statistics", "pgqueuer_schedules", "pgqueuer"):
        op.execute(f"DROP TABLE IF EXISTS {name}")
    op.execute("DROP TYPE IF EXISTS pgqueuer_status")
