# SPDX-License-Identifier: Apache-2.0
"""Instances that reappear after they counted as gone, and failed instances that keep living."""

from __future__ import annotations

import pytest

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.settings import FailedInstancePolicy
from novitai.store.queries import instances
from tests.lifecycle.actions import ask, calls, directly, fault, heal, upstream
from tests.lifecycle.world import World

START, DELETE = OperationKind.START, OperationKind.DELETE
FAILED = InstanceStatus.FAILED
UNSEEN = {"kind": "list", "omit": "my-instance*"}
UNKNOWN = {"kind": "call", "path": "/gpu/instance", "method": "GET", "status": 404}


async def alive(world: World) -> bool:
    """Return whether any upstream instance is left."""
    return any(row["live"] for row in await world.emulator.ever())


@pytest.mark.parametrize("healed", [True, False])
async def test_a_delete_of_what_is_missing_already_ends_as_soon_as_any(
    world: World, running: str, healed: bool
) -> None:
    """Absences from before a delete call do not count, and the delete ends."""
    await world.emulator.call(
        "PATCH", "settings", json={"delays": {"toRemove": [0.5, 0.5], "removing": [0.5, 0.5]}}
    )
    await fault(world, **UNSEEN)

    async def missed_twice() -> bool:
        row = await world.app.database.read(lambda c: instances.load(c, running))
        return row is not None and row.observed.missing_count >= 2

    await world.until(missed_twice, within=300)
    await ask(world, DELETE, running)
    await world.pass_time(2)
    if healed:
        await heal(world)
    await world.until_status(running, InstanceStatus.TERMINATED, within=30)
    assert await calls(world, "delete") == 1


@pytest.mark.parametrize("policy", list(FailedInstancePolicy))
async def test_a_migration_takes_its_time(
    world: World, running: str, policy: FailedInstancePolicy
) -> None:
    """After a migration of 15 minutes the readiness deadline starts again."""
    await world.reopen(failed_instance_policy=policy)
    await world.emulator.call(
        "PATCH", "settings", json={"delays": {"migrating": [900, 900], "boot": [30, 30]}}
    )
    await directly(world, "migrate", {"instanceId": (await upstream(world, running))["id"]})
    await world.until_status(running, InstanceStatus.MIGRATING, within=100)
    await world.pass_time(1100, step=5)
    assert await world.status(running) == "running"
    assert FAILED.value not in " ".join(await world.events(running))


async def test_what_failed_as_gone_is_ended_when_it_is_back(world: World) -> None:
    """A failed, gone instance that runs again is reported as drift and deleted."""
    await fault(world, **UNSEEN)
    await fault(world, **UNKNOWN)
    instance_id = await world.create()
    await world.until_status(instance_id, FAILED, within=1500)
    await heal(world)
    await world.pass_time(300, step=5)
    assert not await alive(world)
    words = await world.events(instance_id)
    assert "instance.drift" in words
    assert words[-1] == "instance.cleaned_up"


async def test_what_was_deleted_is_deleted_when_it_is_back(world: World) -> None:
    """A deleted instance that is listed again is deleted again."""
    await world.emulator.call("PATCH", "settings", json={"deleteNotFoundSeconds": 400})
    await fault(world, **UNSEEN)
    await fault(world, **UNKNOWN)
    instance_id = await world.create()
    await world.pass_time(20)
    await ask(world, DELETE, instance_id)
    await world.until_status(instance_id, InstanceStatus.TERMINATED, within=900)
    assert await alive(world)
    await heal(world)
    await world.pass_time(600, step=5)
    assert not await alive(world)


@pytest.mark.parametrize("word", ["starting", "stopping"])
async def test_what_failed_and_cannot_be_stopped_is_deleted(
    world: World, stopped: str, word: str
) -> None:
    """A failed instance that does not stop within ten minutes is deleted."""
    await start_and_fail(world, stopped, word)
    await world.pass_time(900, step=5)
    assert await calls(world, "stop") > 2
    assert not await alive(world)
    assert (await world.events(stopped))[-1] == "instance.cleaned_up"


async def test_nothing_is_deleted_for_a_word_we_do_not_know(world: World, stopped: str) -> None:
    """The reap ends with an unknown status; the next status begins another."""
    await start_and_fail(world, stopped, "freezing")
    await world.pass_time(900, step=5)
    assert await alive(world)
    assert "operation" not in await world.view(stopped)
    wanted = (await upstream(world, stopped))["id"]
    await world.emulator.call("POST", f"instances/{wanted}/hold", json={"status": None})
    await world.pass_time(600, step=5)
    assert (await upstream(world, stopped))["status"] == "exited"


async def test_what_somebody_starts_after_it_failed_is_left_to_them(
    world: World, stopped: str
) -> None:
    """A failed, stopped instance started outside is reported as drift only."""
    await start_and_fail(world, stopped, "starting")
    wanted = (await upstream(world, stopped))["id"]
    await world.emulator.call("POST", f"instances/{wanted}/hold", json={"status": None})
    await heal(world)

    async def exited() -> bool:
        return bool((await upstream(world, stopped))["status"] == "exited")

    await world.until(exited, within=300)
    await world.pass_time(60)
    stops = await calls(world, "stop")
    # Long enough to be listed in a transient status.
    await world.emulator.call("PATCH", "settings", json={"delays": {"starting": [120, 120]}})
    await directly(world, "start", {"instanceId": wanted})
    await world.pass_time(400)
    assert (await upstream(world, stopped))["status"] == "running"
    assert await calls(world, "stop") == stops
    assert "instance.drift" in await world.events(stopped)


async def test_a_stop_under_way_is_not_ended_by_a_refusal(world: World, stopped: str) -> None:
    """A repeated stop that is refused does not cause a deletion."""
    await fault(world, kind="outcome", operation="start", result="neverBoots")
    await ask(world, START, stopped)
    await fault(world, kind="outcome", operation="stop", result="stuck")
    await world.until_status(stopped, FAILED, within=900)
    await world.pass_time(20)
    before = await calls(world, "stop")
    refusal = {"status": 400, "reason": "VALIDATOR_PARAM", "message": "instance is stopping"}
    await fault(world, kind="call", path="/gpu/instance/stop", **refusal)
    await world.pass_time(300)
    assert await calls(world, "stop") > before
    assert await calls(world, "delete") == 0


async def start_and_fail(world: World, instance_id: str, word: str) -> None:
    """Start an instance that never becomes ready and then stays in a status."""
    wanted = (await upstream(world, instance_id))["id"]
    await fault(world, kind="outcome", operation="start", result="neverBoots")
    await ask(world, START, instance_id)
    await world.pass_time(30)
    await world.emulator.call("POST", f"instances/{wanted}/hold", json={"status": word})
    await world.until_status(instance_id, FAILED, within=900)
