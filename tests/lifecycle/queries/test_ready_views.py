# SPDX-License-Identifier: Apache-2.0
"""Answers as ready bytes: they are those of the view, and follow each change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import orjson
import psycopg
import pytest
from pydantic import TypeAdapter
from sqlalchemy import Connection

from novitai.api.routes.instances import whole_view
from novitai.domain.instance import InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.operation import Operation, OperationKind
from novitai.errors import NotFound
from novitai.lifecycle.queries.ready_views import ReadyViews, WantedPage
from novitai.store.engine.database import Database
from novitai.store.opening import open_database
from novitai.store.queries import coordination, instances, operations
from novitai.store.queries.changes import Changes
from novitai.store.queries.coordination import LastListing
from novitai.store.queries.instances import Filter
from novitai.testing import ManualClock, an_instance
from tests.domain.making import AT as NOW
from tests.lifecycle.world import World

T = TypeVar("T")

INSTANCE = an_instance(InstanceStatus.CREATING)
OPERATION = Operation("op_1", OperationKind.CREATE, INSTANCE.id, "place", NOW, NOW)
ALL = WantedPage(Filter(), None, 100)


def insert(connection: Connection) -> None:
    """Insert the record of an instance that is being created."""
    instances.insert(connection, INSTANCE, b"sealed")
    operations.insert(connection, OPERATION)


@pytest.fixture
async def ready(database: Database, clock: ManualClock) -> ReadyViews:
    """The reader, with one record."""
    await database.write(insert)
    return ReadyViews(database, clock)


def hits(ready: ReadyViews) -> tuple[int, int]:
    """Count hits and misses of single instances."""
    stats = ready.details.stats()
    return stats.hits, stats.misses


def set_columns(**values: object) -> Callable[[Connection], None]:
    """Make a write of columns of the instance."""
    return partial(instances.update_columns, instance_id=INSTANCE.id, values=values)


async def test_what_did_not_change_is_not_read_again(ready: ReadyViews) -> None:
    """The second read of an unchanged instance is a hit with the same bytes."""
    first = await ready.one(INSTANCE.id)
    assert await ready.one(INSTANCE.id) == first
    assert hits(ready) == (1, 1)


async def test_a_commit_that_changes_no_view_costs_no_reading(
    database: Database, ready: ReadyViews
) -> None:
    """A lease on the operation, or a value of the installation, leaves the copies as they are."""
    first, page = await ready.one(INSTANCE.id), await ready.page(ALL)
    await database.write(partial(coordination.set_value, name="x", text="y"))
    await database.write(partial(operations.claim, operation_id="op_1", now=NOW, until=NOW + 1))
    assert await ready.one(INSTANCE.id) == first
    assert await ready.page(ALL) is page
    assert hits(ready) == (1, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "starting"},
        {"hourly_price": 1000},
        {"ready_at": NOW + 1},
        {"last_used_at": NOW + 1},
        {"obs_status": "pulling"},
        {"obs_port_mappings": '[[22,"ssh://h:1","tcp"]]'},
        {"obs_ssh": "ssh://root@h:1"},
        {"error_code": "X", "error_message": "m", "error_at": NOW},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_change_shows_in_the_next_read(
    database: Database, ready: ReadyViews, changes: dict[str, Any]
) -> None:
    """After a write of any column of the view, neither the copy nor the page is used."""
    before, page = await ready.one(INSTANCE.id), await ready.page(ALL)
    await database.write(set_columns(**changes))
    after = await ready.one(INSTANCE.id)
    assert after.body != before.body
    assert after.digest != before.digest
    assert hits(ready) == (0, 2)
    assert (await ready.page(ALL)).body != page.body


async def test_a_step_of_the_operation_shows_in_the_next_read(
    database: Database, ready: ReadyViews
) -> None:
    """A change of the running operation also invalidates the copy."""

    def step(connection: Connection) -> None:
        claimed = operations.claim(connection, "op_1", now=NOW, until=NOW + 1)
        assert claimed is not None
        operations.apply(
            connection,
            claimed,
            phase="launch",
            now=NOW + 5,
            next_step_at=NOW,
            progress=claimed.progress,
            error=None,
        )

    assert orjson.loads((await ready.one(INSTANCE.id)).body)["operation"]["phase"] == "place"
    await database.write(step)
    assert orjson.loads((await ready.one(INSTANCE.id)).body)["operation"]["phase"] == "launch"
    (listed,) = orjson.loads((await ready.page(ALL)).body)["instances"]
    assert listed["operation"]["phase"] == "launch"


async def test_a_listing_moves_observed_at_and_nothing_else(
    database: Database, ready: ReadyViews
) -> None:
    """A listing of the account changes neither the copy nor its tag, but `observedAt`."""
    await database.write(set_columns(obs_at=NOW, obs_status="running"))
    first = await ready.one(INSTANCE.id)
    page = orjson.loads((await ready.page(ALL)).body)
    listing = LastListing(NOW + 60_000, complete=True)
    await database.write(partial(coordination.record_listing, listing=listing))
    second = await ready.one(INSTANCE.id)
    assert orjson.loads(first.body)["observedAt"] == "2025-10-09T08:53:20.000Z"
    assert orjson.loads(second.body)["observedAt"] == "2025-10-09T08:54:20.000Z"
    assert (first.digest, hits(ready)) == (second.digest, (1, 1))
    listed = orjson.loads((await ready.page(ALL)).body)
    assert listed != page
    assert listed["instances"] == [orjson.loads(second.body)]


async def test_an_instance_that_is_missing_keeps_when_it_was_seen(
    database: Database, ready: ReadyViews
) -> None:
    """`observedAt` of an instance that the last listing lacked is that of the one before."""
    await database.write(set_columns(obs_at=NOW, obs_missing_count=1))
    listing = LastListing(NOW + 60_000, complete=True)
    await database.write(partial(coordination.record_listing, listing=listing))
    shown = orjson.loads((await ready.one(INSTANCE.id)).body)
    assert shown["observedAt"] == "2025-10-09T08:53:20.000Z"


async def test_an_instance_that_is_not_there_is_never_held(ready: ReadyViews) -> None:
    """Unknown IDs are not cached."""
    for number in range(5):
        with pytest.raises(NotFound):
            await ready.one(f"inst_0_{number}")
    assert ready.details.stats().size == 0


async def test_a_new_instance_is_found_at_once(database: Database, ready: ReadyViews) -> None:
    """An ID that did not exist, and the total of a list, follow an insert."""
    fresh = replace(INSTANCE, id="inst_1760000000_zzz", upstream_id=None)
    with pytest.raises(NotFound):
        await ready.one(fresh.id)
    assert (await ready.page(ALL)).total == 1
    await database.write(partial(instances.insert, instance=fresh, launch_sealed=b"sealed"))
    assert orjson.loads((await ready.one(fresh.id)).body)["id"] == fresh.id
    assert (await ready.page(ALL)).total == 2


@pytest.mark.postgresql
async def test_another_process_changes_what_this_one_shows(
    postgresql_database_url: str, clock: ManualClock
) -> None:
    """A commit of another process shows in the next read, even one of an older version."""
    database = await open_database(postgresql_database_url, clock)
    other = await open_database(postgresql_database_url, clock)
    try:
        await database.write(insert)
        ready = ReadyViews(database, clock)
        before = await ready.one(INSTANCE.id)
        await other.write(set_columns(obs_status="pulling"))
        after = await ready.one(INSTANCE.id)
        assert orjson.loads(after.body)["upstreamStatus"] == "pulling"
        assert after.digest != before.digest
    finally:
        await other.close()
        await database.close()


@pytest.mark.postgresql
async def test_a_transaction_that_commits_late_is_not_missed(
    postgresql_database_url: str, clock: ManualClock
) -> None:
    """Of two transactions, the one that began first may commit last."""
    database = await open_database(postgresql_database_url, clock)
    try:
        await database.write(insert)
        second = replace(INSTANCE, id="inst_1760000000_zzz", upstream_id=None)
        await database.write(partial(instances.insert, instance=second, launch_sealed=b"sealed"))
        ready = ReadyViews(database, clock)
        async with await psycopg.AsyncConnection.connect(
            postgresql_database_url, autocommit=True
        ) as late:
            await late.execute("BEGIN")
            await late.execute(
                "UPDATE instances SET obs_status = 'tardy' WHERE id = %s", [INSTANCE.id]
            )
            for number in range(3):
                columns = {"obs_status": f"early-{number}"}
                await database.write(
                    partial(instances.update_columns, instance_id=second.id, values=columns)
                )
                assert "tardy" not in str((await ready.one(INSTANCE.id)).body)
                assert f"early-{number}" in str((await ready.one(second.id)).body)
            await late.execute("COMMIT")
            assert "tardy" in str((await ready.one(INSTANCE.id)).body)
    finally:
        await database.close()


async def test_reads_at_the_same_time_are_one_read(
    ready: ReadyViews, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who ask for the same page or for several instances at once share the statements."""
    reads: list[object] = []
    read = database.read

    async def counted(fn: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        found = await read(fn, snapshot=snapshot)
        if not isinstance(found, Changes):
            reads.append(found)
        return found

    await ready.one(INSTANCE.id)
    ready.details.clear()
    monkeypatch.setattr(database, "read", counted)
    answers = await asyncio.gather(*(ready.one(INSTANCE.id) for _ in range(5)))
    assert len(set(answers)) == len(reads) == 1
    pages = await asyncio.gather(*(ready.page(ALL) for _ in range(5)))
    assert all(page is pages[0] for page in pages)
    assert len(reads) == 2


async def test_a_reader_that_goes_away_disturbs_nobody(ready: ReadyViews) -> None:
    """Cancelling one of several readers leaves the others their answers."""
    reads = [asyncio.create_task(ready.one(INSTANCE.id)) for _ in range(3)]
    pages = [asyncio.create_task(ready.page(ALL)) for _ in range(3)]
    await asyncio.sleep(0)
    reads[0].cancel()
    pages[0].cancel()
    kept = await asyncio.gather(*reads[1:])
    assert kept[0] == kept[1]
    assert (await asyncio.gather(*pages[1:]))[0].total == 1
    assert await ready.one(INSTANCE.id) == kept[0]


async def test_what_changes_while_it_is_read_is_not_kept(
    database: Database, ready: ReadyViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view whose record changes after it was read and before it is stored is not stored."""
    await ready.one(INSTANCE.id)
    ready.details.clear()
    read = database.read
    held, go_on = asyncio.Event(), asyncio.Event()

    async def slow(fn: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        found = await read(fn, snapshot=snapshot)
        if not isinstance(found, Changes) and not held.is_set():
            held.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(database, "read", slow)
    early = asyncio.create_task(ready.one(INSTANCE.id))
    await held.wait()
    await database.write(set_columns(obs_status="later"))
    late = await ready.one(INSTANCE.id)
    go_on.set()
    assert b"later" not in (await early).body
    assert b"later" in late.body
    assert await ready.one(INSTANCE.id) == late


async def test_only_the_changed_records_of_a_page_are_read(
    database: Database, ready: ReadyViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change, a page takes the views of all other instances from the page before."""
    for number in range(3):
        fresh = replace(INSTANCE, id=f"inst_1760000000_{number}", upstream_id=None)
        await database.write(partial(instances.insert, instance=fresh, launch_sealed=b"sealed"))
    before = {view.id: view for view in (await ready.page(ALL)).views}
    await database.write(set_columns(obs_status="pulling"))
    after = (await ready.page(ALL)).views
    assert [view.id for view in after if view is not before[view.id]] == [INSTANCE.id]


async def test_cleared_copies_are_read_again(ready: ReadyViews) -> None:
    """Clearing the caches changes no answer."""
    first, page = await ready.one(INSTANCE.id), await ready.page(ALL)
    assert (ready.details.clear(), ready.lists.clear()) == (1, 1)
    assert await ready.one(INSTANCE.id) == first
    assert (await ready.page(ALL)).body == page.body


async def test_the_bytes_of_a_page_are_those_of_its_model(ready: ReadyViews) -> None:
    """A page is the JSON of its views, its total and its cursor."""
    page = await ready.page(replace(ALL, limit=1))
    one = await ready.one(INSTANCE.id)
    assert orjson.loads(page.body) == {"instances": [orjson.loads(one.body)], "total": 1}
    nothing = await ready.page(replace(ALL, after=(1, "a")))
    assert orjson.loads(nothing.body) == {"instances": [], "total": 1}


async def test_the_ready_bytes_are_what_the_model_and_the_view_say(world: World) -> None:
    """In every status the bytes are the view's JSON and match the schema."""
    instance_id = await world.create()
    seen = set()
    for _ in range(400):
        before = await world.app.instances.get(instance_id)
        rendered = await world.app.ready.one(instance_id)
        after = await world.app.instances.get(instance_id)
        # A step may run between the two reads, so either view is right.
        views = [orjson.dumps(whole_view(shown)) for shown in (before, after)]
        assert rendered.body in views
        shown = TypeAdapter(InstanceDetails).validate_json(rendered.body, strict=True)
        seen.add(shown["status"])
        if shown["status"] is InstanceStatus.RUNNING:
            break
        await world.pass_time(1)
    assert InstanceStatus.RUNNING in seen
    assert world.app.ready.details.stats().hits
