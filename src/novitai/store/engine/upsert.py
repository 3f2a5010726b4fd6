# SPDX-License-Identifier: Apache-2.0
"""INSERT ... ON CONFLICT for both dialects, which SQLAlchemy implements separately."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Table

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite


def insert(table: Table, dialect: str) -> postgresql.Insert | sqlite.Insert:
    """Return an insert for `dialect`, which is `connection.dialect.name`."""
    # Imported here because a process uses one of them, and PostgreSQL's loads slowly.
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)
