# SPDX-License-Identifier: Apache-2.0
"""Number events under a lock that shows readers which numbers may still be uncommitted.

Readers used to wait for every older transaction of the server, even of other databases, and could
still miss an event: the younger of two transactions may draw the lower number and commit last. Now
a transaction takes a shared advisory lock before it draws its first number; the lock's key is the
last number drawn before.

The expression is the column's default, so that every insert takes the lock, in all versions of
novitai. A transaction-local setting records that the transaction holds the lock, so that it takes
one lock and not one for each event. Rolling back a savepoint undoes both lock and setting.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The first 16 bits of the key: "ev". `novitai.store.queries.events` searches for them.
_SPACE = 0x6576 << 48
_DRAWN = "coalesce(pg_sequence_last_value('events_sequence_seq'::regclass), 0)"
_NEXT = "nextval('events_sequence_seq'::regclass)"


def upgrade() -> None:
    """Change the default, and drop the column of the transaction ID."""
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
    """Restore the plain default and the column."""
    op.add_column("events", sa.Column("transaction_id", sa.BigInteger()))
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE events ALTER COLUMN sequence SET DEFAULT {_NEXT}")
        op.execute(
            "ALTER TABLE events ALTER COLUMN transaction_id "
            "SET DEFAULT pg_current_xact_id()::text::bigint"
        )
