# SPDX-License-Identifier: Apache-2.0
"""Queries on state that processes share: installation values, workers, and the last listing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson
from sqlalchemy import Connection, bindparam, delete, func, select, text

from novitai.store.engine import upsert
from novitai.store.tables import (
    installation,
    listings,
    workers,
)

INSTALLATION_ID: Final = "id"
EARLIER_IDS: Final = "earlier_ids"
"""The names of values: the installation's ID, and a JSON list of the IDs that it had before."""
_LAST: Final = "last"
_FORGOTTEN_AFTER: Final = 3_600_000
# Run for each step of an operation; built once, because that costs more than running them.
_VALUE: Final = select(installation.c.value).where(installation.c.name == bindparam("wanted"))
_LOOKED: Final = select(
    listings.c.complete_at, listings.c.whole_at, listings.c.incomplete_count
).where(listings.c.name == _LAST)
_SERVER_TIME: Final = text("SELECT extract(epoch FROM clock_timestamp()) * 1000")


@dataclass(frozen=True, slots=True)
class LastListing:
    """The last listing of the account.

    Attributes:
        began_at: In Unix milliseconds.
        complete: Whether it is a complete listing, so that an instance not in it is absent.
        whole: Whether every page was read.
    """

    began_at: int
    complete: bool
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Looked:
    """When the account was last listed, in Unix milliseconds; None before the first time.

    Attributes:
        complete_at: When the last complete listing began.
        whole_at: When the last listing whose pages were all read began.
        incomplete_count: The number of consecutive incomplete listings.
    """

    complete_at: int | None = None
    whole_at: int | None = None
    incomplete_count: int = 0


def value(connection: Connection, name: str) -> str | None:
    """Read a value of this installation; None if it is not set."""
    return connection.execute(_VALUE, {"wanted": name}).scalar_one_or_none()


def set_value(connection: Connection, name: str, text: str) -> None:
    """Write a value of this installation, replacing the previous one."""
    connection.execute(
        upsert.insert(installation, connection.dialect.name)
        .values(name=name, value=text)
        .on_conflict_do_update(index_elements=[installation.c.name], set_={"value": text})
    )


def kept_value(connection: Connection, name: str, fresh: str) -> str:
    """Return a value that never changes once set; the first call sets it to `fresh`."""
    connection.execute(
        upsert.insert(installation, connection.dialect.name)
        .values(name=name, value=fresh)
        .on_conflict_do_nothing()
    )
    value: str = connection.execute(
        select(installation.c.value).where(installation.c.name == name)
    ).scalar_one()
    return value


def installation_ids(connection: Connection) -> tuple[str, ...]:
    """Return the IDs in our markers: the present one, and those before the database was copied."""
    present, earlier = value(connection, INSTALLATION_ID), value(connection, EARLIER_IDS)
    known = () if earlier is None else tuple(orjson.loads(earlier))
    return known if present is None else (present, *known)


def server_time(connection: Connection) -> int | None:
    """Read the PostgreSQL server's clock, in Unix milliseconds; None on SQLite."""
    if connection.dialect.name != "postgresql":
        return None
    return int(connection.execute(_SERVER_TIME).scalar_one())


def record_listing(connection: Connection, listing: LastListing) -> None:
    """Record the last listing, unless a newer one is recorded."""
    values: dict[str, object] = {"began_at": listing.began_at}
    if listing.complete:
        values["complete_at"] = listing.began_at
    if listing.whole:
        values["whole_at"] = listing.began_at
    fresh = {**values, "incomplete_count": 0 if listing.complete else 1}
    more: dict[str, object] = {**values, "incomplete_count": 0}
    if not listing.complete:
        more["incomplete_count"] = listings.c.incomplete_count + 1
    connection.execute(
        upsert.insert(listings, connection.dialect.name)
        .values(name=_LAST, **fresh)
        .on_conflict_do_update(
            index_elements=[listings.c.name],
            set_=more,
            where=listings.c.began_at <= listing.began_at,
        )
    )


def last_listing(connection: Connection) -> LastListing | None:
    """Return the last listing; None before the first."""
    row = connection.execute(
        select(listings.c.began_at, listings.c.complete_at, listings.c.whole_at).where(
            listings.c.name == _LAST
        )
    ).first()
    if row is None:
        return None
    return LastListing(row[0], complete=row[1] == row[0], whole=row[2] == row[0])


def looked(connection: Connection) -> Looked:
    """Return when the account was last listed."""
    row = connection.execute(_LOOKED).first()
    return Looked() if row is None else Looked(*row)


def listed_at(connection: Connection) -> int | None:
    """Return when the last complete listing began, in Unix milliseconds; None before the first."""
    return connection.execute(
        select(listings.c.complete_at).where(listings.c.name == _LAST)
    ).scalar_one_or_none()


def note_worker(connection: Connection, worker_id: str, *, started_at: int, now: int) -> None:
    """Record that a worker is alive, and delete workers not seen for an hour."""
    connection.execute(
        upsert.insert(workers, connection.dialect.name)
        .values(id=worker_id, started_at=started_at, seen_at=now)
        .on_conflict_do_update(index_elements=[workers.c.id], set_={"seen_at": now})
    )
    connection.execute(delete(workers).where(workers.c.seen_at < now - _FORGOTTEN_AFTER))


def worker_seen_at(connection: Connection) -> int | None:
    """Return when any worker was last seen, in Unix milliseconds; None if never."""
    seen_at: int | None = connection.execute(select(func.max(workers.c.seen_at))).scalar_one()
    return seen_at
