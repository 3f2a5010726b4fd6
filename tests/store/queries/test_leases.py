# SPDX-License-Identifier: Apache-2.0
"""Leases on rows and on names, on each store."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import Connection, select

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind, Outcome
from novitai.domain.webhook import Webhook, id_of_url
from novitai.store.engine.database import Database
from novitai.store.queries import instances, leases, operations, webhook_lines, webhooks
from novitai.store.queries.leases import Fenced, LeasedTable
from novitai.store.tables import Record
from novitai.store.tables import operations as operations_table
from novitai.store.tables import webhook_lines as lines_table
from novitai.testing import an_instance

NOW = 1_000_000
ROW = "row_1"
OPERATIONS = LeasedTable.of(
    operations_table,
    operations_table.c.next_step_at,
    live=~operations_table.c.done,
    returning=(operations_table.c.id, operations_table.c.token),
)
LINES = LeasedTable.of(
    lines_table, lines_table.c.next_try_at, returning=(lines_table.c.id, lines_table.c.token)
)


class Claimed:
    """A claim made by a test."""

    def __init__(self, row: Record) -> None:
        self.id: str = row[0]
        self.token: int = row[1]


def have_operation(connection: Connection) -> None:
    """Insert an operation that is due."""
    instance = an_instance(InstanceStatus.CREATING, id="inst_1")
    instances.insert(connection, instance, b"sealed")
    connection.execute(
        operations_table.insert().values(
            id=ROW,
            kind=OperationKind.STOP.value,
            instance_id="inst_1",
            phase="stop",
            created_at=NOW,
            updated_at=NOW,
            next_step_at=NOW,
        )
    )


def have_line(connection: Connection) -> None:
    """Insert a line that is due."""
    instances.insert(connection, an_instance(InstanceStatus.CREATING, id="inst_1"), b"sealed")
    url = "https://a.example.com/"
    webhooks.insert(connection, Webhook(id_of_url(url), False, url, (), True, NOW, NOW), None)
    webhook_lines.open_line(
        connection,
        fresh_id=ROW,
        instance_id="inst_1",
        webhook_id=id_of_url(url),
        host="a.example.com",
        now=NOW,
    )


@pytest.fixture(params=["operations", "webhook_lines"])
async def leased(request: pytest.FixtureRequest, database: Database) -> LeasedTable:
    """Each table whose rows are claimed, with one row that is due."""
    is_operations = request.param == "operations"
    await database.write(have_operation if is_operations else have_line)
    return OPERATIONS if is_operations else LINES


async def claim(database: Database, leased: LeasedTable, *, now: int = NOW) -> Claimed | None:
    """Claim the row for ten milliseconds."""
    row = await database.write(partial(leased.claim, row_id=ROW, now=now, until=now + 10))
    return None if row is None else Claimed(row)


async def until(database: Database, leased: LeasedTable) -> int | None:
    """Read when the lease on the row expires."""
    column = leased.table.c.lease_until
    return await database.read(lambda c: c.execute(select(column)).scalar_one())


async def test_a_row_is_held_by_one_worker_at_a_time(
    database: Database, leased: LeasedTable
) -> None:
    """A leased row cannot be claimed until the lease expires; a second claim ends the first."""
    first = await claim(database, leased)
    assert first is not None
    assert await claim(database, leased, now=NOW + 9) is None
    second = await claim(database, leased, now=NOW + 10)
    assert second is not None
    assert second.token == first.token + 1

    assert not await database.write(partial(leased.renew, claim=first, until=NOW + 99))
    await database.write(partial(leased.release, claim=first, due_at=NOW + 99))
    with pytest.raises(Fenced, match=rf"{ROW} .*token {first.token}"):
        await database.write(partial(leased.hold, claim=first))
    await database.write(partial(leased.hold, claim=second))
    assert await until(database, leased) == NOW + 20


async def test_a_lease_that_was_given_back_is_not_renewed(
    database: Database, leased: LeasedTable
) -> None:
    """A renewal extends a current lease, and does not restore a released one."""
    mine = await claim(database, leased)
    assert mine is not None
    assert await database.write(partial(leased.renew, claim=mine, until=NOW + 50))
    assert await until(database, leased) == NOW + 50
    await database.write(partial(leased.release, claim=mine, due_at=NOW + 60))
    assert not await database.write(partial(leased.renew, claim=mine, until=NOW + 70))
    assert await until(database, leased) is None


async def test_a_restart_gives_every_lease_back_and_fences_the_past(
    database: Database, leased: LeasedTable
) -> None:
    """After `release_all` a row can be claimed at once, and a write by the old claim fails."""
    mine = await claim(database, leased)
    assert mine is not None
    assert await database.write(leased.release_all) == 1
    with pytest.raises(Fenced):
        await database.write(partial(leased.hold, claim=mine))
    assert await claim(database, leased) is not None


async def test_a_finished_operation_is_not_claimed(database: Database) -> None:
    """A row that is not live can be neither claimed nor written by an old claim."""
    await database.write(have_operation)
    mine = await claim(database, OPERATIONS)
    assert mine is not None

    def end(connection: Connection) -> None:
        operation = operations.load(connection, ROW)
        assert operation is not None
        operations.finish(connection, operation, outcome=Outcome.SUCCEEDED, now=NOW)

    await database.write(end)
    assert await claim(database, OPERATIONS, now=NOW + 99) is None
    with pytest.raises(Fenced):
        await database.write(partial(OPERATIONS.hold, claim=mine))


async def test_a_named_lease_has_one_holder(database: Database) -> None:
    """One holder takes and renews a named lease; another can after it expires or is released."""

    async def take(holder: str, now: int) -> bool:
        return await database.write(
            lambda c: leases.take(c, "sync", holder, now=now, until=now + 10)
        )

    assert await take("a", NOW)
    assert await take("a", NOW + 5)
    assert not await take("b", NOW + 14)
    await database.write(lambda c: leases.release(c, "sync", "b"))
    assert not await take("b", NOW + 14)
    assert await take("b", NOW + 15)
    await database.write(lambda c: leases.release(c, "sync", "b"))
    assert await take("a", NOW + 16)
    await database.write(leases.release_all)
    assert await take("b", NOW + 17)
