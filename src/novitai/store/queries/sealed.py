# SPDX-License-Identifier: Apache-2.0
"""Queries on sealed values: read them in pages, and replace them by others of the same content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, select, update

from novitai.store.tables import installation, instances, webhooks

Reseal = Callable[[str, bytes], bytes | None]
"""Returns a value of a purpose sealed with the present key; None if it is already."""


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of sealed values.

    Attributes:
        column: The column.
        purpose: The purpose that its values are sealed for.
    """

    column: Column[Any]
    purpose: str


SIGNING_SECRET: Final = "webhook_secret"  # noqa: S105 - a name, not a secret
"""The purpose of the installation's signing secret, and the name it is stored under."""
SEALED: Final = (
    SealedColumn(instances.c.launch_sealed, "launch"),
    SealedColumn(instances.c.obs_credentials_sealed, "credentials"),
    SealedColumn(webhooks.c.secret_sealed, "webhook-secret"),
    SealedColumn(webhooks.c.previous_secret_sealed, "webhook-secret"),
)
"""All columns of sealed values; two values of `installation` are sealed too."""


def replace_page(
    connection: Connection, sealed: SealedColumn, reseal: Reseal, *, after: str, limit: int
) -> tuple[str | None, int]:
    """Reseal the values of the next rows.

    Args:
        connection: A write transaction.
        sealed: The column.
        reseal: Seals a value with the present key.
        after: The ID of the last row of the page before; empty for the first page.
        limit: How many rows to read.

    Returns:
        The ID of the last row, or None after the last page, and how many values were replaced.
    """
    column = sealed.column
    table: Table = column.table
    rows = connection.execute(
        select(table.c.id, column)
        .where(table.c.id > after, column.is_not(None))
        .order_by(table.c.id)
        .limit(limit)
    ).all()
    replaced = 0
    for row_id, value in rows:
        # The value of a record that was removed is empty.
        fresh = reseal(sealed.purpose, bytes(value)) if value else None
        if fresh is not None:
            # Another value may have been written since it was read.
            same = (table.c.id == row_id, column == value)
            changed = connection.execute(update(table).where(*same).values({column.name: fresh}))
            replaced += changed.rowcount
    return (rows[-1][0] if len(rows) == limit else None), replaced


def replace_text(connection: Connection, name: str, reseal: Callable[[str], str | None]) -> int:
    """Reseal a value of `installation` that is stored as text; return how many were replaced."""
    found = connection.execute(
        select(installation.c.value).where(installation.c.name == name)
    ).scalar_one_or_none()
    fresh = None if found is None else reseal(found)
    if fresh is None:
        return 0
    same = (installation.c.name == name, installation.c.value == found)
    return connection.execute(update(installation).where(*same).values(value=fresh)).rowcount
