# SPDX-License-Identifier: Apache-2.0
"""Alembic runs this module for each command. `novitai.store.migrate` passes the connection."""

from __future__ import annotations

from alembic import context

from novitai.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # Each migration is atomic, on SQLite too: its DDL is transactional, although Alembic assumes
    # otherwise, and the connection begins transactions itself.
    transaction_per_migration=True,
    # Most changes of a table on SQLite need a copy of the table.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
