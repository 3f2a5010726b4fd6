# SPDX-License-Identifier: Apache-2.0
"""Writes `sqlite.sql`, what all migrations make in an empty SQLite file: `make schema`.

Alembic writes the constraints and the indexes of a copied table in an order that depends on
Python's hash seed. So `make schema` fixes the seed, and a comparison ignores that order.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from alembic.command import upgrade
from sqlalchemy import create_engine

from novitai.store import migrate

SCHEMA: Final = Path(migrate.__file__).parent / "migrations" / "sqlite.sql"


def dump(path: Path) -> str:
    """Return the statements that make the tables of an SQLite file, and its rows."""
    with closing(sqlite3.connect(path)) as connection:
        # Without BEGIN and COMMIT around them.
        return "\n".join([*connection.iterdump()][1:-1]) + "\n"


def parts(script: str) -> list[list[str]]:
    """Return the statements of a dump, in an order that is the same for equal schemas."""
    statements: list[list[str]] = []
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            first, *others = (one.strip().rstrip(",") for one in statement.splitlines())
            is_table = first.startswith("CREATE TABLE")
            statements.append([first, *(sorted(others) if is_table else others)])
            statement = ""
    return sorted(statements)


def migrated() -> str:
    """Run all migrations in an empty file, and return its dump."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        engine = create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            upgrade(migrate.config(connection), "head")
        engine.dispose()
        return dump(path)


if __name__ == "__main__":
    SCHEMA.write_text(migrated(), encoding="utf-8")
