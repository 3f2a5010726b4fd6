# SPDX-License-Identifier: Apache-2.0
"""Inserts that say what becomes of a row that is there already: each dialect has its own."""

from __future__ import annotations

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite


def insert(table: Table, dialect: str) -> postgresql.Insert | sqlite.Insert:
    """Begin an insert for a dialect, such as `connection.dialect.name`."""
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
