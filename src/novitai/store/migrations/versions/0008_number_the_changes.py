# SPDX-License-Identifier: Apache-2.0
"""Number each change of an instance's view, so that processes know what to read again.

`changed_in` is set by triggers, so that every writer sets it: older versions of novitai that run
during an upgrade, and a person with an SQL client. On SQLite it is a counter. On PostgreSQL it is
the ID of the transaction, because numbers from a sequence may be committed in another order.
`novitai.store.queries.changes` reads it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("instances", "operations")
# Leases and plans of operations change often and are not part of a view.
_OF_INTEREST = {
    "instances": "",
    "operations": "(OLD.phase <> NEW.phase OR OLD.done <> NEW.done)",
}


def upgrade() -> None:
    """Add the column, its index and the triggers."""
    for table in _TABLES:
        op.add_column(
            table,
            sa.Column("changed_in", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        )
        op.create_index(f"ix_{table}_changed_in", table, ["changed_in"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            """
            CREATE FUNCTION novitai_number_change() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                NEW.changed_in := pg_current_xact_id()::text::bigint;
                RETURN NEW;
            END
            $$
            """
        )
    for table in _TABLES:
        for what in ("insert", "update"):
            op.execute(_trigger(table, what))


def downgrade() -> None:
    """Drop the triggers, the indexes and the columns."""
    postgresql = op.get_bind().dialect.name == "postgresql"
    for table in _TABLES:
        for what in ("insert", "update"):
            name = f"{table}_number_{what}"
            op.execute(f"DROP TRIGGER {name}" + (f" ON {table}" if postgresql else ""))
        op.drop_index(f"ix_{table}_changed_in", table)
        op.drop_column(table, "changed_in")
    if postgresql:
        op.execute("DROP FUNCTION novitai_number_change()")


def _trigger(table: str, what: str) -> str:
    condition = _OF_INTEREST[table] if what == "update" else ""
    name = f"{table}_number_{what}"
    if op.get_bind().dialect.name == "postgresql":
        when = f"WHEN ({condition})" if condition else ""
        return (
            f"CREATE TRIGGER {name} BEFORE {what} ON {table} FOR EACH ROW {when} "
            "EXECUTE FUNCTION novitai_number_change()"
        )
    if what == "update":
        # The trigger's own update must not run it again.
        own = "NEW.changed_in = OLD.changed_in"
        condition = f"{own} AND {condition}" if condition else own
    when = f"WHEN {condition}" if condition else ""
    statement = f"UPDATE {table} SET changed_in = (SELECT max(changed_in) + 1 FROM {table})"  # noqa: S608 - constants
    return (
        f"CREATE TRIGGER {name} AFTER {what} ON {table} {when} "
        f"BEGIN {statement} WHERE rowid = NEW.rowid; END"
    )
