# SPDX-License-Identifier: Apache-2.0
"""Queries on `instance_tags`, the tags by which lists of instances are filtered.

`instances.tags` has the same tags as one JSON text, so that reading an instance needs no join.
Only this module writes either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.sql import ColumnElement

from novitai.domain.tags import Tags
from novitai.store.tables import instance_tags as table
from novitai.store.tables import instances

NO_TAGS: Final = "{}"
"""The column `instances.tags` of an instance without tags."""

_DRIVING: Final = table.alias("tag")


def insert(connection: Connection, instance_id: str, tags: Tags, *, created_at: int) -> None:
    """Insert the tags of an instance that has none in this table.

    Args:
        connection: A write transaction.
        instance_id: The instance.
        tags: Its tags.
        created_at: When the instance was created, in Unix milliseconds.
    """
    if tags:
        rows = [
            {"instance_id": instance_id, "name": name, "value": value, "created_at": created_at}
            for name, value in tags.items()
        ]
        connection.execute(table.insert(), rows)


def replace(connection: Connection, instance_id: str, tags: Tags, *, created_at: int) -> None:
    """Replace the tags of an instance. The caller holds its row lock; arguments as for `insert`."""
    connection.execute(delete(table).where(table.c.instance_id == instance_id))
    insert(connection, instance_id, tags, created_at=created_at)
    connection.execute(
        update(instances).where(instances.c.id == instance_id).values(tags=dump(tags))
    )


def having(wanted: Sequence[tuple[str, str]]) -> list[ColumnElement[bool]]:
    """Return the conditions for instances that have all these tags, at least one.

    The first tag is joined, which makes the database read the instances in the order of the list
    (see `place`), so that a page costs the same for rare and for frequent tags. The others are
    looked up in sets, which costs the same in every order of the tags.
    """
    (name, value), *others = wanted
    further = (
        _DRIVING.c.instance_id.in_(
            select(table.c.instance_id).where(table.c.name == name, table.c.value == value)
        )
        for name, value in others
    )
    return [
        _DRIVING.c.instance_id == instances.c.id,
        _DRIVING.c.name == name,
        _DRIVING.c.value == value,
        *further,
    ]


def place() -> tuple[ColumnElement[int], ColumnElement[str]]:
    """Return the columns by which a list with the conditions of `having` is sorted."""
    return _DRIVING.c.created_at, _DRIVING.c.instance_id


def dump(tags: Tags) -> str:
    """Serialize tags for the column `instances.tags`, sorted by name."""
    return orjson.dumps(dict(tags), option=orjson.OPT_SORT_KEYS).decode()


def load(stored: str) -> Mapping[str, str]:
    """Parse the column `instances.tags`."""
    tags: dict[str, str] = {} if stored == NO_TAGS else orjson.loads(stored)
    return tags
