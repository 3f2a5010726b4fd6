# SPDX-License-Identifier: Apache-2.0
"""Foreign instances with our names, early key changes, backups, and holds during a pass."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.testing import ManualClock
from novitai.upstream.errors import NotSent
from novitai.upstream.operations import Endpoint
from novitai.upstream.window import SendWindow
from tests.lifecycle.actions import (
    CREATE,
    account_events,
    alive,
    ask,
    fault,
    heal,
    operation_error,
    run_some,
)
from tests.lifecycle.world import World

RUNNING, STOPPED = InstanceStatus.RUNNING, InstanceStatus.STOPPED
TERMINATED = InstanceStatus.TERMINATED
STOP, DELETE = OperationKind.STOP, OperationKind.DELETE


async def test_an_instance_that_was_there_before_is_not_adopted_for_its_name(world: World) -> None:
    """An older instance renamed to our marker is reported only."""
    await world.emulator.call("POST", "seed", json={"names": ["theirs"], "status": "running"})
    await world.pass_time(90, step=5)
    await fault(world, **CREATE, drop=True, when="before", times=1)
    instance_id = await world.create()
    await world.pass_time(5)
    [attempt] = await world.attempts(instance_id)
    [theirs] = await alive(world)
    name = {"name": attempt.upstream_name}
    await world.emulator.call("PATCH", f"instances/{theirs}", json=name)
    await world.until_status(instance_id, RUNNING, within=900)
    assert (await world.view(instance_id))["upstreamId"] != theirs
    assert "account.orphan_found" in await account_events(world)
    await ask(world, DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=300)
    assert await alive(world) == [theirs]


async def test_the_older_of_two_with_one_name_is_not_ours_if_it_was_there_before(
    world: World,
) -> None:
    """Of two with the marker, the newly listed one is ours."""
    await world.emulator.call("POST", "seed", json={"names": ["theirs"], "status": "running"})
    await world.pass_time(90, step=5)
    [theirs] = await alive(world)
    lists = await fault(world, kind="call", path="/gpu/instances", status=503)
    await fault(world, **CREATE, drop=True, when="after", times=1)
    instance_id = await world.create()
    await world.pass_time(5)
    [attempt] = await world.attempts(instance_id)
    name = {"name": attempt.upstream_name}
    await world.emulator.call("PATCH", f"instances/{theirs}", json=name)
    await world.emulator.call("DELETE", f"faults/{lists}")
    await world.until_status(instance_id, RUNNING, within=900)
    assert (await world.view(instance_id))["upstreamId"] != theirs
    assert await world.emulator.creates() == 1


async def test_what_was_renamed_comes_back_as_the_record_that_it_was(world: World) -> None:
    """ID and creation time identify the instance of an ended record."""
    [instance_id] = await run_some(world, 1)
    [bought] = await alive(world)
    await world.emulator.call("PATCH", f"instances/{bought}", json={"name": "renamed"})
    await fault(world, kind="list", omit="*")
    await fault(world, kind="call", path="/gpu/instance", method="GET", status=404)
    await world.until_status(instance_id, TERMINATED, within=1200)
    await heal(world)
    await world.until_status(instance_id, RUNNING, within=300)
    assert "instance.reappeared" in await world.events(instance_id)


async def test_a_purchase_that_was_never_listed_outlives_the_key_of_another_account(
    world: World,
) -> None:
    """A key change after a purchase does not end its record."""
    await world.emulator.call("PATCH", "settings", json={"accountPerKey": True})
    await world.pass_time(30)
    await fault(world, kind="call", path="/gpu/instances", status=503)
    instance_id = await world.create()
    await world.pass_time(5)
    assert (await world.view(instance_id))["upstreamId"]
    await world.reopen(novita_api_key=SecretStr("sk-of-another-account"))
    await heal(world)
    await world.pass_time(1500, step=5)
    assert await account_events(world) == ["account.changed"]
    assert await world.app.ownership.blocked()
    await world.reopen(novita_api_key=SecretStr("sk-of-the-tests"))
    await world.until_status(instance_id, RUNNING, within=300)
    assert not await world.app.ownership.blocked()
    assert len(await alive(world)) == 1


async def test_a_call_that_waits_for_its_turn_does_not_leave_into_a_hold(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call claimed before a hold is not sent during it."""
    ids = await run_some(world, 4)
    turn, waiting = asyncio.Event(), asyncio.Event()
    refused: list[Exception] = []
    act = world.app.client._act

    async def wait_for_a_turn(call: Endpoint, upstream_id: str, window: SendWindow) -> None:
        waiting.set()
        await turn.wait()
        try:
            await act(call, upstream_id, window)
        except NotSent as error:
            refused.append(error)
            raise

    monkeypatch.setattr(world.app.client, "_act", wait_for_a_turn)
    await ask(world, STOP, ids[3])
    while not waiting.is_set():
        await world.pass_time(1)
    left_out = [(await world.view(one))["upstreamId"] for one in ids[:3]]
    await fault(world, kind="list", omit=left_out)
    await world.until(world.app.ownership.blocked, within=60)
    turn.set()
    await world.pass_time(60)
    assert refused
    assert await operation_error(world, ids[3]) == "ACCOUNT_HELD"
    assert {row["status"] for row in await world.emulator.ever()} == {"running"}
    await heal(world)
    await world.until_status(ids[3], STOPPED, within=300)


async def test_the_listing_that_shows_a_backup_deletes_nothing(world: World) -> None:
    """A listing that shows a restored database causes no deletion."""
    [instance_id] = await run_some(world, 1)
    [bought] = await world.emulator.ever()
    installation = world.app.installation_id
    await world.end()
    # Created at the same time, so by all evidence it is a surplus.
    await world.emulator.call(
        "POST", f"instances/{bought['id']}/copy", json={"createdAt": int(bought["createdAt"])}
    )
    later: dict[str, Any] = {"names": [f"later-nv{installation}{'u' * 16}"], "ageSeconds": 0}
    await world.emulator.call("POST", "seed", json=later)
    await world.open()
    await world.pass_time(300, step=5)
    assert await world.app.ownership.blocked()
    assert len(await alive(world)) == 3
    assert await world.status(instance_id) == "running"


@pytest.mark.parametrize("closed", [True, False])
def test_a_window_that_was_closed_lets_nothing_through(*, closed: bool) -> None:
    """A closed window, or one within it, allows no call."""
    clock = ManualClock()
    outer = SendWindow.lasting(clock, 15_000)
    inner = SendWindow(clock.now() + 5_000, clock.boottime() + 5, within=outer)
    outer.closed = closed
    assert outer.is_over(clock) is closed
    assert inner.is_over(clock) is closed
