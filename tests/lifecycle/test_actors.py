# SPDX-License-Identifier: Apache-2.0
"""Every operation and event names who caused it, and every record who created it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Connection, select

from novitai.domain.actor import CLEANUP, SYNC, Actor
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.domain.requests import AdoptRequest, InstanceChange
from novitai.errors import ValidationFailed
from novitai.store.queries import events
from novitai.store.queries.actors import load_actor
from novitai.store.tables import operations as operations_table
from tests.domain.making import TESTER
from tests.lifecycle.actions import adopt, ask, directly, fault, run_some, upstream
from tests.lifecycle.world import REQUEST, World, on_both_stores

RUNNING, STOPPED = InstanceStatus.RUNNING, InstanceStatus.STOPPED
OTHER = Actor("key_other", "another key")


async def told(world: World, instance_id: str) -> Sequence[tuple[str, Actor | None]]:
    """Return the events of an instance: the types, without their prefix, and the actors."""
    log = await world.app.database.read(lambda c: events.of_instance(c, instance_id))
    return [(one.type.value.removeprefix("instance."), one.actor) for one in log]


async def begun(world: World, instance_id: str) -> Sequence[tuple[str, Actor | None]]:
    """Return the operations of an instance: kinds and actors."""

    def read(connection: Connection) -> Sequence[tuple[str, Actor | None]]:
        table = operations_table
        query = select(table.c.kind, table.c.actor).where(table.c.instance_id == instance_id)
        rows = connection.execute(query.order_by(table.c.created_at, table.c.id))
        return [(kind, load_actor(actor)) for kind, actor in rows]

    return await world.app.database.read(read)


@on_both_stores
async def test_what_an_operation_does_is_credited_to_its_key(world: World) -> None:
    """All events of a verb have the key that requested it, those that a listing caused too."""
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=600)
    await world.do(world.app.operating.ask(OperationKind.STOP, instance_id, actor=OTHER))
    await world.until_status(instance_id, STOPPED, within=300)
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, InstanceStatus.TERMINATED, within=300)
    log = await told(world, instance_id)
    at = [one for one, _ in log].index("stopping")
    assert {actor for _, actor in log[:at]} == {TESTER}
    assert [one for one in log[at:] if one[1] != TESTER] == [
        ("stopping", OTHER),
        ("stopped", OTHER),
    ]
    assert await begun(world, instance_id) == [
        ("create", TESTER),
        ("stop", OTHER),
        ("delete", TESTER),
    ]


async def test_a_replaced_operation_is_cancelled_by_the_new_one(world: World) -> None:
    """The cancellation has the key of the delete; the events before it have that of the create."""
    instance_id = await world.create()
    await world.do(world.app.operating.ask(OperationKind.DELETE, instance_id, actor=OTHER))
    assert await told(world, instance_id) == [
        ("created", TESTER),
        ("operation_cancelled", OTHER),
        ("terminating", OTHER),
    ]


async def test_a_change_outside_is_seen_by_sync(world: World) -> None:
    """A stop and a start at Novita, and their events, are credited to sync."""
    [instance_id] = await run_some(world, 1)
    before = len(await told(world, instance_id))
    row = await upstream(world, instance_id)
    await directly(world, "stop", {"instanceId": row["id"]})
    await world.until_status(instance_id, STOPPED, within=300)
    await directly(world, "start", {"instanceId": row["id"]})
    await world.until_status(instance_id, RUNNING, within=900)
    later = (await told(world, instance_id))[before:]
    assert {"drift", "stopped", "running"} <= {kind for kind, _ in later}
    assert {actor for _, actor in later} == {SYNC}
    assert ("follow", SYNC) in await begun(world, instance_id)


async def test_the_clean_up_is_done_by_the_policy(world: World) -> None:
    """The failure belongs to the create; what follows was decided by the policy."""
    await fault(world, kind="outcome", operation="create", result="neverBoots")
    instance_id = await world.create()
    await world.until_status(instance_id, InstanceStatus.FAILED, within=700)
    await world.pass_time(200)
    log = await told(world, instance_id)
    assert ("failed", TESTER) in log
    assert log[-1] == ("cleaned_up", CLEANUP)
    assert await begun(world, instance_id) == [("create", TESTER), ("reap", CLEANUP)]


async def test_the_account_has_actors_too(world: World) -> None:
    """A hold is seen by sync, and ended by the person who confirms it."""
    await run_some(world, 4)
    for row in await world.emulator.ever():
        await directly(world, "delete", {"instanceId": row["id"]})
    await world.until(world.app.ownership.blocked, within=600)
    digest = (await world.app.ownership.overview()).missing_digest
    await world.do(world.app.ownership.confirm(digest, actor=OTHER))
    log = await world.app.database.read(events.since)
    account = [(one.data["held"], one.actor) for one in log if one.type.value == "account.changed"]
    assert account == [(True, SYNC), (False, OTHER)]
    gone = [one.actor for one in log if one.type.value == "instance.terminated"]
    assert gone == [OTHER] * 4


@on_both_stores
async def test_an_adopted_instance(world: World) -> None:
    """The record has the tags and no creator; the event has the key that adopted it."""
    [first] = await run_some(world, 1)
    row = await upstream(world, first)
    await world.do(world.app.ownership.release(first, actor=OTHER))
    await world.pass_time(120)
    adopted = await adopt(world, row["id"], tags={"team": "red"})
    shown = await world.view(adopted)
    assert shown["tags"] == {"team": "red"}
    assert "createdBy" not in shown
    assert (await told(world, adopted))[0] == ("adopted", TESTER)
    assert (await told(world, first))[-1] == ("released", OTHER)
    assert (await world.view(first))["createdBy"] == TESTER.view()


@on_both_stores
async def test_a_waiting_record_gets_the_tags_of_its_adoption(world: World) -> None:
    """They are added to its own; its creator stays; 17 are refused, and nothing is adopted."""
    [first] = await run_some(world, 1)
    row = await upstream(world, first)
    await world.do(world.app.ownership.release(first, actor=TESTER))
    await fault(world, kind="call", path="/gpu/instance/create", method="POST", status=500)
    request = replace(REQUEST, name="waits", tags={f"a{one}": "x" for one in range(15)})
    waiting = await world.create(request)
    await world.pass_time(120)
    many = AdoptRequest(row["id"], instance_id=waiting, tags={"b": "1", "c": "2"})
    with pytest.raises(ValidationFailed):
        await world.do(world.app.ownership.adopt(many, actor=OTHER))
    assert "upstreamId" not in await world.view(waiting)
    given = replace(many, tags={"a0": "y", "b": "1"})
    await world.do(world.app.ownership.adopt(given, actor=OTHER))
    shown = await world.view(waiting)
    assert shown["tags"] == {**request.tags, "a0": "y", "b": "1"}
    assert (shown["upstreamId"], shown["createdBy"]) == (row["id"], TESTER.view())


async def test_a_row_without_an_actor_shows_none(world: World) -> None:
    """Operations and events from before actors were stored are read, and continue without one."""
    instance_id = await world.create()

    def forget(connection: Connection) -> None:
        for table in ("operations", "events"):
            connection.exec_driver_sql(f"UPDATE {table} SET actor = NULL")  # noqa: S608 - constants

    await world.app.database.write(forget)
    await world.until_status(instance_id, RUNNING, within=600)
    assert {actor for _, actor in await told(world, instance_id)} == {None}
    change = InstanceChange(frozenset({"tags"}), tags={"team": "red"})
    await world.do(world.app.changes.change(instance_id, change, actor=TESTER))
    assert (await told(world, instance_id))[-1] == ("updated", TESTER)
