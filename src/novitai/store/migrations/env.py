# SPDX-License-Identifier: Apache-2.0
"""What Alembic runs for each command. The connection is handed in by `novitai.store.migrate`."""

from __future__ import annotations

from alembic import context

from novitai.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # Each migration stands or falls as a whole. On SQLite too: its DDL is transactional, whatever
    # Alembic thinks of it, and the connection begins transactions itself.
    transaction_per_migration=True,
    # SQLite alters a table by copying it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
