# SPDX-License-Identifier: Apache-2.0
"""Queries on the upstream account: its state, its listed IDs and its unmanaged instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import orjson
from sqlalchemy import Connection, delete, func, select, update

from novitai.domain.account import AccountState, Hold, HoldReason
from novitai.store.engine import upsert
from novitai.store.engine.chunks import chunks
from novitai.store.queries import coordination
from novitai.store.tables import listed_instances as listed
from novitai.store.tables import unmanaged_instances as table

_STATE: Final = "account"


@dataclass(frozen=True, slots=True)
class Unmanaged:
    """An instance of the account without a record, as the last listing showed it.

    Attributes:
        marker: The marker in its name, of any installation; empty if there is none.
        attempt_known: Whether the attempt in the marker is in our table of attempts.
        orphan: Whether the marker is this installation's.
        hourly_price: Of the whole instance, in 1/100000 USD; None if upstream gives none.
        created_at: On upstream's clock, in Unix milliseconds; None if upstream gives none.
    """

    upstream_id: str
    name: str
    status: str
    marker: str = ""
    attempt_known: bool = False
    orphan: bool = False
    hourly_price: int | None = None
    created_at: int | None = None
    region: str = ""
    product_id: str = ""
    product_name: str = ""
    gpu_num: int | None = None
    rootfs_size: int | None = None
    billing_mode: str = ""
    cluster_id: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """The stored data about an upstream ID; times in Unix milliseconds."""

    upstream_id: str
    first_listed_at: int
    orphan_at: int | None = None
    dismissed_at: int | None = None
    deleted_at: int | None = None
    last_listed_at: int | None = None
    attempt_id: str | None = None


_COLUMNS: Final = tuple(table.c[name] for name in Unmanaged.__slots__)


def load_state(connection: Connection) -> AccountState:
    """Load the stored state of the account."""
    text = coordination.value(connection, _STATE)
    if text is None:
        return AccountState()
    found = orjson.loads(text)
    hold = found.get("hold")
    return AccountState(
        keys=tuple(found.get("keys", ())),
        hold=None
        if hold is None
        else Hold(HoldReason(hold["reason"]), hold["since"], tuple(hold["missing"]), hold["key"]),
        restored_at=found.get("restored_at"),
        # Only versions that appended the event at once did not store this.
        restored_told=found.get("restored_told", found.get("restored_at") is not None),
        filter_works=found.get("filter_works", False),
    )


def save_state(connection: Connection, state: AccountState) -> None:
    """Store the state of the account."""
    hold = state.hold
    found = {
        "keys": state.keys,
        "hold": None
        if hold is None
        else {
            "reason": hold.reason.value,
            "since": hold.since,
            "missing": hold.missing,
            "key": hold.key,
        },
        "restored_at": state.restored_at,
        "restored_told": state.restored_told,
        "filter_works": state.filter_works,
    }
    coordination.set_value(connection, _STATE, orjson.dumps(found).decode())


def mark_restored(connection: Connection, at: int) -> None:
    """Mark a database as restored or copied at a time in Unix milliseconds.

    No write call leaves until a person confirms it. The event is appended by the next worker.
    """
    state = load_state(connection)
    save_state(connection, replace(state, restored_at=at, restored_told=False))


def unmanaged(connection: Connection) -> list[Unmanaged]:
    """List the unmanaged instances of the last listing, in no particular order."""
    return [Unmanaged(*row) for row in connection.execute(select(*_COLUMNS))]


def find_unmanaged(connection: Connection, upstream_id: str) -> Unmanaged | None:
    """Find an unmanaged instance; None if the last listing had no such instance."""
    row = connection.execute(select(*_COLUMNS).where(table.c.upstream_id == upstream_id)).first()
    return None if row is None else Unmanaged(*row)


def orphans(connection: Connection) -> list[Unmanaged]:
    """List the orphans of the last listing."""
    return [Unmanaged(*row) for row in connection.execute(select(*_COLUMNS).where(table.c.orphan))]


def count_orphans(connection: Connection) -> int:
    """Count the orphans of the last listing that were not dismissed."""
    return connection.execute(
        select(func.count())
        .select_from(table)
        .outerjoin(listed, listed.c.upstream_id == table.c.upstream_id)
        .where(table.c.orphan, listed.c.dismissed_at.is_(None))
    ).scalar_one()


def drop_unmanaged(connection: Connection, upstream_id: str) -> None:
    """Remove an instance that now has a record from the unmanaged ones."""
    connection.execute(delete(table).where(table.c.upstream_id == upstream_id))


def replace_unmanaged(connection: Connection, seen: Sequence[Unmanaged]) -> None:
    """Replace the unmanaged instances with `seen`, writing only the rows that differ."""
    before = {one.upstream_id: one for one in unmanaged(connection)}
    now = {one.upstream_id: one for one in seen}
    stale = [upstream_id for upstream_id, one in before.items() if now.get(upstream_id) != one]
    for chunk in chunks(stale):
        connection.execute(delete(table).where(table.c.upstream_id.in_(chunk)))
    fresh = [
        {name: getattr(one, name) for name in Unmanaged.__slots__}
        for upstream_id, one in now.items()
        if before.get(upstream_id) != one
    ]
    if fresh:
        connection.execute(table.insert(), fresh)


def not_noted(
    connection: Connection, seen: Mapping[str, str | None], since: int
) -> dict[str, str | None]:
    """Return those IDs of a listing that are still to be noted, with their attempts.

    Args:
        connection: A transaction.
        seen: The attempt in the marker of each upstream ID; None without a marker of ours.
        since: A note of this time or a later one suffices, in Unix milliseconds.
    """
    found = dict(seen)
    for chunk in chunks(sorted(seen)):
        query = select(listed.c.upstream_id, listed.c.attempt_id).where(
            listed.c.upstream_id.in_(chunk), listed.c.last_listed_at >= since
        )
        for upstream_id, attempt_id in connection.execute(query):
            if seen[upstream_id] in {None, attempt_id}:
                del found[upstream_id]
    return found


def note_listed(connection: Connection, seen: Mapping[str, str | None], at: int) -> None:
    """Note that a listing contained these upstream IDs.

    Args:
        connection: A write transaction.
        seen: The attempt in the marker of each upstream ID; None without a marker of ours.
        at: When the listing began, in Unix milliseconds.
    """
    if not seen:
        return
    statement = upsert.insert(listed, connection.dialect.name)
    statement = statement.on_conflict_do_update(
        index_elements=[listed.c.upstream_id],
        set_={
            "last_listed_at": statement.excluded.last_listed_at,
            "attempt_id": func.coalesce(statement.excluded.attempt_id, listed.c.attempt_id),
        },
    )
    connection.execute(
        statement,
        [
            {
                "upstream_id": upstream_id,
                "first_listed_at": at,
                "last_listed_at": at,
                "attempt_id": seen[upstream_id],
            }
            for upstream_id in sorted(seen)
        ],
    )


def listed_of(connection: Connection, upstream_ids: Sequence[str]) -> dict[str, Listed]:
    """Load the stored data about upstream IDs; those never listed are left out."""
    found: dict[str, Listed] = {}
    for chunk in chunks(upstream_ids):
        rows = connection.execute(select(*listed.c).where(listed.c.upstream_id.in_(chunk)))
        found.update((row[0], Listed(*row)) for row in rows)
    return found


def first_listed(connection: Connection, upstream_ids: Sequence[str]) -> dict[str, int]:
    """Return when upstream IDs were first listed, in Unix milliseconds."""
    return {
        one.upstream_id: one.first_listed_at for one in listed_of(connection, upstream_ids).values()
    }


def mark_listed(connection: Connection, upstream_id: str, **times: int | None) -> None:
    """Set decision times of an upstream ID: `orphan_at`, `dismissed_at`, `deleted_at`."""
    connection.execute(update(listed).where(listed.c.upstream_id == upstream_id).values(**times))


def orphans_deleted_since(connection: Connection, since: int) -> int:
    """Count the orphans deleted at or after `since`, in Unix milliseconds."""
    return connection.execute(
        select(func.count()).select_from(listed).where(listed.c.deleted_at >= since)
    ).scalar_one()
