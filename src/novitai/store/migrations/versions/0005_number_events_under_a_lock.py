# SPDX-License-Identifier: Apache-2.0
"""Number events under a lock that tells readers below which number one may still appear.

Readers used to wait for every older transaction of the whole server, those of other databases
included, and could still pass over an event: of two transactions, the younger may draw the lower
number and commit last. Now a transaction takes a shared advisory lock before it draws its first
number, and the lock's key is the last number drawn until then.

The expression is the column's default, so that whoever inserts an event takes the lock, of
whatever version. A local setting remembers that the transaction has it: one lock for a transaction
and not one for each event. Undone with a savepoint, lock and setting go together.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The first 16 bits of the key: "ev". `novitai.store.queries.events` looks for them.
_SPACE = 0x6576 << 48
_DRAWN = "coalesce(pg_sequence_last_value('events_sequence_seq'::regclass), 0)"
_NEXT = "nextval('events_sequence_seq'::regclass)"


def upgrade() -> None:
    """Change the default, and drop the column of the transaction's number."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"""
            ALTER TABLE events ALTER COLUMN sequence SET DEFAULT
            CASE
                WHEN coalesce(current_setting('novitai.numbers', true), '') = 'drawn' THEN {_NEXT}
                WHEN pg_try_advisory_xact_lock_shared({_SPACE} | {_DRAWN}) THEN
                    CASE WHEN set_config('novitai.numbers', 'drawn', true) = 'drawn' THEN {_NEXT}
                    END
            END
            """
        )
    op.drop_column("events", "transaction_id")


def downgrade() -> None:
    """Bring back the plain default and the column."""
    op.add_column("events", sa.Column("transaction_id", sa.BigInteger()))
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE events ALTER COLUMN sequence SET DEFAULT {_NEXT}")
        op.execute(
            "ALTER TABLE events ALTER COLUMN transaction_id "
            "SET DEFAULT pg_current_xact_id()::text::bigint"
        )
