# SPDX-License-Identifier: Apache-2.0
"""Purchases, ends and stops that must not happen, even if a person or a clock interferes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.lifecycle.operations.late_calls import LateCalls
from novitai.store.queries import instances
from tests.domain.making import TESTER
from tests.lifecycle.actions import (
    CREATE,
    adopt,
    alive,
    ask,
    fault,
    heal,
    operation_error,
    run_some,
)
from tests.lifecycle.world import REQUEST, World

RUNNING, STOPPED = InstanceStatus.RUNNING, InstanceStatus.STOPPED


async def stranger(world: World) -> str:
    """Make an unmanaged instance in the account; return its upstream ID."""
    await world.emulator.call("POST", "seed", json={"names": ["theirs"], "status": "running"})
    await world.pass_time(90, step=5)
    [found] = await world.app.ownership.unmanaged()
    return found.row.upstream_id


def interrupt(target: Any, name: str, act: Any) -> None:
    """Run something once, just before a method of an object is called."""
    true = getattr(target, name)
    done: list[bool] = []

    async def before(*arguments: Any, **options: Any) -> Any:
        if not done:
            done.append(True)
            await act()
        return await true(*arguments, **options)

    setattr(target, name, before)


async def test_a_record_that_is_given_an_instance_while_it_looks_buys_none(world: World) -> None:
    """An adoption between placement and purchase stops the purchase."""
    theirs = await stranger(world)
    given: list[str] = []

    async def give() -> None:
        given.append(await adopt(world, theirs, instance_id=ids[0]))

    ids: list[str] = []
    interrupt(world.app.client, "permit_create", give)
    ids.append(await world.create())
    await world.pass_time(60)
    assert given == ids
    assert (await world.view(ids[0]))["upstreamId"] == theirs
    assert await world.emulator.creates() == 0


async def test_an_adoption_is_not_undone_by_the_answer_of_a_purchase(world: World) -> None:
    """An adoption during the create call is kept."""
    theirs = await stranger(world)
    ids: list[str] = []

    async def give() -> None:
        await adopt(world, theirs, instance_id=ids[0])

    interrupt(world.app.client, "create", give)
    ids.append(await world.create())
    await world.pass_time(90)
    assert (await world.view(ids[0]))["upstreamId"] == theirs
    assert await alive(world) == [theirs]


async def test_a_part_that_comes_back_does_not_prove_the_rest_gone(world: World) -> None:
    """If one of three is seen again, the hold lasts for the others."""
    ids = await run_some(world, 3)
    own = [str((await world.view(one))["upstreamId"]) for one in ids]
    all_away = await fault(world, kind="list", omit=own)
    await fault(world, kind="call", path="/gpu/instance", method="GET", status=404)
    await world.pass_time(120, step=5)
    assert await world.app.ownership.blocked()
    await fault(world, kind="list", omit=own[:2])
    await world.emulator.call("DELETE", f"faults/{all_away}")
    await world.pass_time(900, step=5)
    assert [await world.status(one) for one in ids] == ["running"] * 3
    assert await world.app.ownership.blocked()
    await heal(world)
    await world.pass_time(60)
    assert not await world.app.ownership.blocked()


async def test_what_no_listing_showed_yet_is_missed_with_another_key(world: World) -> None:
    """A key change before the first listing fails nothing."""
    await world.emulator.call("PATCH", "settings", json={"accountPerKey": True})
    await fault(world, kind="list", omit="*")
    instance_id = await world.create()
    await world.until_creates()
    assert len(await alive(world)) == 1
    await heal(world)
    await world.reopen(novita_api_key=SecretStr("sk-of-another-account"))
    await world.pass_time(1500, step=5)
    assert await world.status(instance_id) not in {"failed", "terminated"}
    assert await world.app.ownership.blocked()
    await world.reopen(novita_api_key=SecretStr("sk-of-the-tests"))
    await world.until_status(instance_id, RUNNING, within=300)
    assert len(await alive(world)) == 1


async def test_an_adopted_record_is_its_id_and_its_creation_time(world: World) -> None:
    """Another creation time is another instance, for which no call is sent."""
    theirs = await stranger(world)
    adopted = await adopt(world, theirs)
    await world.until_status(adopted, RUNNING, within=120)
    shown = await world.app.database.read(instances.tracked)
    [true_time] = [one.upstream_created_at for one in shown]

    async def remember(at: int | None) -> None:
        def write(connection: Connection) -> None:
            instances.update_columns(connection, adopted, {"upstream_created_at": at})

        await world.app.database.write(write)

    await remember(1_700_000_000_000)
    await world.pass_time(40, step=5)
    await ask(world, OperationKind.DELETE, adopted)
    await world.pass_time(120, step=5)
    assert await alive(world) == [theirs]
    assert await operation_error(world, adopted) == "IDENTITY_UNCONFIRMED"
    await remember(true_time)
    await world.until_status(adopted, InstanceStatus.TERMINATED, within=300)


async def test_an_adopted_instance_is_no_surplus_of_another_record(world: World) -> None:
    """An orphan adopted during a sync pass is not deleted."""
    [instance_id] = await run_some(world, 1)
    own = (await world.view(instance_id))["upstreamId"]
    await world.pass_time(60)
    await world.emulator.call("POST", f"instances/{own}/copy", json={})
    await world.pass_time(90, step=5)
    [orphan] = await world.app.ownership.unmanaged()
    adopted = await adopt(world, orphan.row.upstream_id)
    await world.do(world.app.ownership.release(instance_id, actor=TESTER))
    await world.until_status(adopted, RUNNING, within=120)
    assert len(await alive(world)) == 2


async def test_a_clock_that_is_set_forward_proves_no_absence(world: World) -> None:
    """A clock jump does not turn seconds of absence into minutes."""
    [instance_id] = await run_some(world, 1)
    await fault(world, kind="list", omit="*")
    await fault(world, kind="call", path="/gpu/instance", method="GET", status=404)
    await world.pass_time(120, step=5)
    world.clock.jump(3600)
    await world.pass_time(300, step=5)
    assert await world.status(instance_id) == "running"


@pytest.mark.parametrize("watched", [True, False])
async def test_a_clock_that_is_set_forward_buys_nothing_twice(world: World, watched: bool) -> None:
    """A jump of an hour does not make an unlisted purchase absent, even if nothing saw it yet."""
    await fault(world, **CREATE, drop=True, when="after", times=1)
    await fault(world, kind="list", omit="*")
    instance_id = await world.create()
    await world.pass_time(10)
    if not watched:
        await world.app.clock_watch.stop()
    world.clock.jump(3600)
    await world.pass_time(60)
    await heal(world)
    await world.until_status(instance_id, RUNNING, within=600)
    assert await world.emulator.creates() == 1


async def test_a_clock_that_is_set_forward_fails_nothing(world: World) -> None:
    """A starting instance keeps its time after a clock jump."""
    instance_id = await world.create()
    await world.pass_time(12)
    assert await world.status(instance_id) in {"creating", "starting"}
    world.clock.jump(7200)
    await world.until_status(instance_id, RUNNING, within=300)
    assert "instance.failed" not in await world.events(instance_id)


async def test_a_hold_that_begins_while_a_call_waits_keeps_it(world: World) -> None:
    """A create call that waits when a hold begins is not sent."""
    ids = await run_some(world, 3)
    creates = await world.emulator.creates()
    own = [str((await world.view(one))["upstreamId"]) for one in ids]

    async def vanish() -> None:
        await fault(world, kind="list", omit=own)
        while not await world.app.ownership.blocked():
            await world.clock.sleep(1)

    interrupt(world.app.client, "permit_create", vanish)
    waiting = asyncio.create_task(world.create(replace(REQUEST, name="waits")))
    await world.pass_time(200, step=2)
    instance_id = await waiting
    assert await world.emulator.creates() == creates
    assert await operation_error(world, instance_id) == "ACCOUNT_HELD"
    await heal(world)
    await world.until_status(instance_id, RUNNING, within=600)


async def test_what_failed_is_not_started_by_a_late_stop(world: World) -> None:
    """A late stop of a failed instance is not corrected."""
    [instance_id] = await run_some(world, 1)
    app = world.app
    late: LateCalls = app.runner._late_calls
    own = (await world.view(instance_id))["upstreamId"]
    await world.emulator.call("POST", f"instances/{own}/stop", json={})
    await world.until_status(instance_id, STOPPED, within=200)

    def fail(connection: Connection) -> None:
        instances.update_columns(connection, instance_id, {"failed": True})
        late.note(connection, instance_id, OperationKind.REAP)

    await app.database.write(fail)
    await world.pass_time(300, step=5)
    rows = {row["id"]: row for row in await world.emulator.ever()}
    assert rows[own]["status"] == "exited"
