# SPDX-License-Identifier: Apache-2.0
"""INSERT ... ON CONFLICT for both dialects, which SQLAlchemy implements separately."""

from __future__ import annotations

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite


def insert(table: Table, dialect: str) -> postgresql.Insert | sqlite.Insert:
    """Return an insert for `dialect`, which is `connection.dialect.name`."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
