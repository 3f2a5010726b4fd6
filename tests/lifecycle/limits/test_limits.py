# SPDX-License-Identifier: Apache-2.0
"""Limits of whole lives: they stop what must be stopped, and nothing on old news."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection
from structlog.testing import capture_logs

from novitai.clock import END_OF_TIME, iso
from novitai.domain.billing import usd_up
from novitai.domain.idle import AutoStop
from novitai.domain.instance import InstanceStatus
from novitai.domain.limits import MINUTE, LimitAction, LimitsChange, LimitSettings
from novitai.domain.operation import OperationKind
from novitai.domain.requests import InstanceChange
from novitai.errors import Conflict, ValidationFailed
from novitai.store.queries import events, instances, limits
from tests.domain.making import TESTER
from tests.lifecycle.actions import CREATE, adopt, alive, ask, calls, directly, fault, heal
from tests.lifecycle.world import REQUEST, World, on_both_stores

RUNNING, STOPPED = InstanceStatus.RUNNING, InstanceStatus.STOPPED
TERMINATED = InstanceStatus.TERMINATED
HOUR = 3600.0


async def limited(world: World, *, protected: str | None = None, **given: Any) -> str:
    """Create an instance with limits; return its ID."""
    request = replace(REQUEST, limits=LimitSettings(**given), protected_reason=protected)
    return await world.create(request)


async def running(world: World, **given: Any) -> str:
    """Create an instance with limits and wait until it runs; return its ID."""
    instance_id = await limited(world, **given)
    await world.until_status(instance_id, RUNNING, within=400)
    return instance_id


async def at_novita(world: World, instance_id: str) -> dict[str, str]:
    """Return the body of a call on the upstream side of an instance."""
    return {"instanceId": str((await world.view(instance_id))["upstreamId"])}


def cheaper(spend: float) -> InstanceChange:
    """Return a change of `maxSpend`, in USD."""
    change = LimitsChange({"max_spend": int(spend * 100_000)})
    return InstanceChange(frozenset({"limits"}), limits=change)


async def told(world: World, instance_id: str, word: str) -> list[Mapping[str, Any]]:
    """Return the data of the events `instance.limit_<word>`."""

    def read(connection: Connection) -> list[Mapping[str, Any]]:
        log = events.of_instance(connection, instance_id)
        return [one.data for one in log if one.type.value == f"instance.{word}"]

    return await world.app.database.read(read)


async def kept(world: World, instance_id: str, minutes: int) -> Mapping[str, Any]:
    """Put off the stop of an instance; return the view."""
    return await world.do(world.app.instance_limits.keep(instance_id, minutes, actor=TESTER))


@on_both_stores
async def test_a_run_ends_at_its_longest(world: World) -> None:
    """An instance is stopped by the end of `maxRunMinutes`, and the view says why."""
    instance_id = await running(world, max_run_minutes=15)
    shown = await world.view(instance_id)
    assert shown["stopReason"] == "maxRunMinutes"
    assert shown["limits"] == {"maxRunMinutes": 15, "onLimit": "stop"}
    await world.pass_time(600, step=5)
    assert await world.status(instance_id) == "running"
    await world.until_status(instance_id, STOPPED, within=400)
    assert iso(world.clock.now()) <= shown["stopsAt"]
    after = await world.view(instance_id)
    assert "stopsAt" not in after
    assert after["stopReason"] == "maxRunMinutes"
    log = [one for one in await world.events(instance_id) if "limit" in one]
    assert log == ["instance.limit_near", "instance.limit_reached"]


async def test_a_start_arms_the_limit_again(world: World) -> None:
    """The deadline of the run before does not end the next one."""
    instance_id = await running(world, max_run_minutes=20)
    first = (await world.view(instance_id))["stopsAt"]
    await world.pass_time(600, step=5)
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=200)
    assert "stopsAt" not in await world.view(instance_id)
    await ask(world, OperationKind.START, instance_id)
    await world.until_status(instance_id, RUNNING, within=400)
    assert (await world.view(instance_id))["stopsAt"] > first
    await world.pass_time(840, step=5)
    assert await world.status(instance_id) == "running"
    await world.until_status(instance_id, STOPPED, within=400)


async def test_a_stop_at_that_has_passed_is_spent(world: World) -> None:
    """A start after `stopAt` is not stopped by it, and the view shows it no more."""
    stop_at = world.clock.now() + 20 * MINUTE
    instance_id = await running(world, stop_at=stop_at)
    assert (await world.view(instance_id))["stopsAt"] == iso(stop_at)
    await world.until_status(instance_id, STOPPED, within=1200)
    assert world.clock.now() <= stop_at
    await world.pass_time(120, step=5)
    await ask(world, OperationKind.START, instance_id)
    await world.until_status(instance_id, RUNNING, within=400)
    await world.pass_time(600, step=5)
    shown = await world.view(instance_id)
    assert shown["status"] == "running"
    assert "limits" not in shown
    assert "stopsAt" not in shown


async def test_a_limit_may_delete(world: World) -> None:
    """With `onLimit: delete` nothing is left."""
    instance_id = await running(world, max_run_minutes=10, on_limit=LimitAction.DELETE)
    await world.until_status(instance_id, TERMINATED, within=700)
    assert not await alive(world)
    [reached] = await told(world, instance_id, "limit_reached")
    assert reached["action"] == "delete"


async def test_a_stopped_instance_is_deleted_in_time(world: World) -> None:
    """By `deleteAfterStoppedMinutes`, which the view announces."""
    instance_id = await running(world, delete_after_stopped_minutes=30)
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=200)
    assert (await world.view(instance_id))["stopReason"] == "deleteAfterStopped"
    await world.pass_time(1500, step=5)
    assert await world.status(instance_id) == "stopped"
    await world.until_status(instance_id, TERMINATED, within=700)


async def test_what_was_started_in_an_outage_is_not_deleted(world: World) -> None:
    """The observation must show it stopped when the limit falls due."""
    instance_id = await running(world, delete_after_stopped_minutes=30)
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=200)
    await fault(world, kind="call", path="/gpu/instances", drop=True)
    await world.pass_time(600, step=10)
    await directly(world, "start", await at_novita(world, instance_id))
    await world.pass_time(3 * HOUR, step=30)
    assert len(await told(world, instance_id, "limit_unenforced")) > 1
    await heal(world)
    await world.until_status(instance_id, RUNNING, within=600)
    await world.pass_time(600, step=10)
    assert await world.status(instance_id) == "running"
    assert not (await world.view(instance_id)).get("unenforced")


async def test_after_a_downtime_an_old_deadline_does_not_fire(world: World) -> None:
    """It was stopped and started at Novita meanwhile: the limit counts from that start."""
    instance_id = await running(world, max_run_minutes=60)
    body = await at_novita(world, instance_id)
    await world.end()
    await world.pass_alone(600)
    await directly(world, "stop", body)
    await world.pass_alone(3000)
    await directly(world, "start", body)
    await world.pass_alone(600)
    await world.open()
    await world.pass_time(300, step=5)
    assert await world.status(instance_id) == "running"
    assert "instance.limit_reached" not in await world.events(instance_id)
    await world.until_status(instance_id, STOPPED, within=3600)


@pytest.mark.parametrize("killed", [False, True])
async def test_after_a_downtime_a_passed_deadline_fires(world: World, killed: bool) -> None:
    """The limit is enforced once the account has been listed, even if the process was killed."""
    instance_id = await running(world, max_run_minutes=60)
    if killed:
        world.at_work.crash()
    await world.end()
    await world.pass_alone(3 * HOUR)
    before = await calls(world, "stop")
    await world.open()
    assert await calls(world, "stop") == before
    await world.until_status(instance_id, STOPPED, within=150)


@on_both_stores
async def test_several_workers_begin_one_stop(world: World) -> None:
    """The row decides: the second one finds the stop under way."""
    instance_id = await running(world, max_run_minutes=60)
    await world.pass_time(120, step=5)
    past = {"obs_run_began_at": world.clock.now() - 2 * 3_600_000, "review_due_at": 0}

    def make_due(connection: Connection) -> None:
        instances.update_columns(connection, instance_id, past)

    await world.app.database.write(make_due)
    await asyncio.gather(*(world.app.limits.run(instance_id) for _ in range(6)))
    log = await world.events(instance_id)
    assert log.count("instance.limit_reached") == 1
    assert log.count("instance.stopping") == 1
    await world.until_status(instance_id, STOPPED, within=150)
    assert await calls(world, "stop") == 1


async def test_an_outage_at_the_deadline_is_told(world: World) -> None:
    """The event comes within a minute, and the stop within a minute of Novita's return."""
    instance_id = await running(world, max_run_minutes=15)
    await fault(world, kind="call", path="*", status=503)
    stops_at = (await world.view(instance_id))["stopsAt"]
    while iso(world.clock.now()) < stops_at:
        await world.pass_time(10, step=5)
    await world.pass_time(60, step=5)
    [first] = await told(world, instance_id, "limit_unenforced")
    assert first["cause"] == "notObserved"
    assert (await world.view(instance_id))["unenforced"] is True
    assert await world.app.database.read(limits.count_unenforced) == 1
    await world.pass_time(1900, step=10)
    assert len(await told(world, instance_id, "limit_unenforced")) == 3
    assert not await told(world, instance_id, "limit_reached")
    stops = await calls(world, "stop")
    await heal(world)

    async def asked() -> bool:
        return await calls(world, "stop") > stops

    await world.until(asked, within=60)
    await world.until_status(instance_id, STOPPED, within=120)
    assert await world.app.database.read(limits.count_unenforced) == 0


async def test_stop_calls_that_fail_are_told(world: World) -> None:
    """The account is listed, but no stop call gets through."""
    instance_id = await running(world, max_run_minutes=10)
    await fault(world, kind="call", path="/gpu/instance/stop", status=503)
    await world.pass_time(700, step=5)
    assert await told(world, instance_id, "limit_unenforced")
    assert (await world.view(instance_id))["unenforced"] is True
    await heal(world)
    await world.until_status(instance_id, STOPPED, within=150)


async def test_a_stop_without_effect_is_asked_again(world: World) -> None:
    """After 10 seconds, not after a minute, and until it takes effect."""
    instance_id = await running(world, max_run_minutes=10)
    await fault(world, kind="call", path="/gpu/instance/stop", lateEffectSeconds=86_400)
    [due] = [(await world.view(instance_id))["stopsAt"]]
    while await calls(world, "stop") == 0:
        await world.pass_time(5)
    await world.pass_time(90)
    assert await calls(world, "stop") >= 6
    assert iso(world.clock.now()) < due or (await world.view(instance_id))["status"] == "stopping"
    await heal(world)
    await world.until_status(instance_id, STOPPED, within=120)


async def test_a_run_that_is_kept_goes_on(world: World) -> None:
    """Another process may keep it while Novita is away: nothing stops it at the old time."""
    instance_id = await running(world, max_run_minutes=15)
    before = (await world.view(instance_id))["stopsAt"]
    await fault(world, kind="call", path="*", status=503)
    await world.pass_time(1000, step=10)
    assert (await world.view(instance_id))["unenforced"] is True
    after = await kept(world, instance_id, 60)
    assert after["stopsAt"] > before
    assert "unenforced" not in after
    await heal(world)
    await world.pass_time(1200, step=10)
    assert await world.status(instance_id) == "running"
    [event] = await told(world, instance_id, "kept")
    assert event["minutes"] == 60
    assert event["stopsAt"] == after["stopsAt"]
    await world.until_status(instance_id, STOPPED, within=3600)


async def test_what_cannot_be_kept(world: World) -> None:
    """Without a limit in time, while it stops, and beyond 7 days in a run."""
    free = await world.create()
    with pytest.raises(Conflict, match="no limit in time") as refusal:
        await kept(world, free, 5)
    assert refusal.value.code == "NOTHING_TO_KEEP"
    instance_id = await running(world, max_run_minutes=60)
    await kept(world, instance_id, 6 * 24 * 60)
    with pytest.raises(ValidationFailed) as wrong:
        await kept(world, instance_id, 24 * 60 + 1)
    assert "at most 1440" in str(wrong.value.details)
    await ask(world, OperationKind.STOP, instance_id)
    with pytest.raises(Conflict, match="stopping"):
        await kept(world, instance_id, 5)


async def test_a_protected_instance_is_never_deleted(world: World) -> None:
    """A delete is refused, a limit that would delete stops it and says so, and so on."""
    instance_id = await running(
        world,
        protected="results",
        max_run_minutes=10,
        on_limit=LimitAction.DELETE,
        delete_after_stopped_minutes=10,
    )
    assert (await world.view(instance_id))["protected"] == {"reason": "results"}
    with pytest.raises(Conflict, match="results") as refusal:
        await ask(world, OperationKind.DELETE, instance_id)
    assert refusal.value.code == "INSTANCE_PROTECTED"
    await world.until_status(instance_id, STOPPED, within=700)
    [first] = await told(world, instance_id, "limit_unenforced")
    assert first["cause"] == "protected"
    await world.pass_time(2000, step=10)
    assert await world.status(instance_id) == "stopped"
    assert (await world.view(instance_id))["unenforced"] is True
    assert len(await alive(world)) == 1


async def test_a_cost_ends_the_run(world: World) -> None:
    """It has cost at most `maxSpend` when it stops, and is not started again."""
    instance_id = await running(world, max_spend=20_000)
    shown = await world.view(instance_id)
    assert shown["limits"] == {"maxSpend": 0.2, "onLimit": "stop"}
    assert shown["stopReason"] == "maxSpend"
    with pytest.raises(Conflict) as nothing:
        await kept(world, instance_id, 60)
    assert nothing.value.code == "NOTHING_TO_KEEP"
    await world.until_status(instance_id, STOPPED, within=3600)
    cost = (await world.app.instances.get(instance_id)).cost
    assert cost is not None
    assert 0.15 < usd_up(cost.most) <= 0.2
    await world.do(world.app.changes.change(instance_id, cheaper(0.1), actor=TESTER))
    with pytest.raises(Conflict) as refusal:
        await ask(world, OperationKind.START, instance_id)
    assert refusal.value.code == "LIMIT_REACHED"


async def test_a_price_that_rises_moves_the_stop(world: World) -> None:
    """The next listing shows it."""
    instance_id = await running(world, max_spend=50_000)
    before = (await world.view(instance_id))["stopsAt"]
    upstream_id = (await at_novita(world, instance_id))["instanceId"]
    dearer = {"instancePrice": 900_000}
    await world.emulator.call("PATCH", f"instances/{upstream_id}", json=dearer)
    await world.pass_time(90, step=5)
    assert (await world.view(instance_id))["stopsAt"] < before


async def test_a_protection_begins_with_the_first_running(world: World) -> None:
    """What never ran can be deleted."""
    instance_id = await limited(world, protected="results")
    await world.until_creates()
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=600)


async def test_what_never_ran_is_deleted(world: World) -> None:
    """Novita takes no stop before `running`, and nothing of the user's is on it."""
    await world.emulator.call("PATCH", "settings", json={"delays": {"pulling": [3000, 3000]}})
    instance_id = await limited(world, max_run_minutes=5)
    await world.until_status(instance_id, TERMINATED, within=700)
    assert await calls(world, "stop") == 0
    [reached] = await told(world, instance_id, "limit_reached")
    assert reached["action"] == "delete"


async def test_the_delete_of_what_was_not_bought_goes_on(world: World) -> None:
    """Its create has been cancelled, so that a review withdraws the delete no more."""
    await fault(world, **CREATE, status=400, reason="INSUFFICIENT_RESOURCE")
    instance_id = await limited(world, stop_at=world.clock.now() + 5 * MINUTE)
    await world.pass_time(30)
    await world.app.jobs.stop(5)
    world.clock.suspend(300)
    await world.pass_time(30)
    for _ in range(3):
        await world.app.limits.sweep()
        assert await world.status(instance_id) == "terminating"
    await world.reopen()
    await world.until_status(instance_id, TERMINATED, within=100)
    assert "instance.starting" not in await world.events(instance_id)
    assert await world.emulator.ever() == []


async def test_nothing_is_bought_after_stop_at(world: World) -> None:
    """A create that waits for capacity ends with it."""
    await fault(world, **CREATE, status=400, reason="INSUFFICIENT_RESOURCE")
    instance_id = await limited(world, stop_at=world.clock.now() + 5 * MINUTE)
    await world.until_status(instance_id, TERMINATED, within=500)
    await heal(world)
    await world.pass_time(300, step=10)
    assert not await alive(world)


async def test_a_limit_ends_the_wait_for_readiness(world: World) -> None:
    """It is stopped although its create is still waiting for its ports."""
    await fault(world, kind="outcome", operation="create", result="neverBoots", times=1)
    instance_id = await limited(world, stop_at=world.clock.now() + 8 * MINUTE)
    await world.until_status(instance_id, STOPPED, within=600)
    assert "instance.operation_cancelled" in await world.events(instance_id)
    assert "instance.failed" not in await world.events(instance_id)


async def test_a_migration_is_awaited(world: World) -> None:
    """It takes no stop: that is told, and it is stopped as soon as it runs."""
    await world.emulator.call("PATCH", "settings", json={"delays": {"migrating": [900, 900]}})
    instance_id = await running(world, max_run_minutes=10)
    await world.pass_time(240, step=5)
    await directly(world, "migrate", await at_novita(world, instance_id))
    await world.pass_time(600, step=5)
    [first] = await told(world, instance_id, "limit_unenforced")
    assert first["cause"] == "cannotBeStopped"
    await world.until_status(instance_id, STOPPED, within=900)


async def test_a_held_account_is_not_touched(world: World) -> None:
    """A due limit is told; after the hold it acts."""
    instance_id = await running(world, max_run_minutes=10)
    await world.app.database.write(world.app.account.mark_restored)
    await world.pass_time(800, step=5)
    assert await calls(world, "stop") == 0
    assert {one["cause"] for one in await told(world, instance_id, "limit_unenforced")} == {
        "accountHeld"
    }
    await world.do(world.app.ownership.confirm(None, actor=TESTER))
    await world.until_status(instance_id, STOPPED, within=150)


async def test_a_purge_is_announced(world: World) -> None:
    """A day before Novita deletes the disk of a stopped instance."""
    instance_id = await running(world)
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=200)
    world.clock.suspend(5.8 * 24 * HOUR)
    await world.pass_time(120, step=5)
    assert not await told(world, instance_id, "data_purge_scheduled")
    world.clock.suspend(0.3 * 24 * HOUR)
    await world.pass_time(120, step=5)
    [event] = await told(world, instance_id, "data_purge_scheduled")
    left = event["purgeAt"]
    assert iso(world.clock.now() + 20 * 60 * MINUTE) < left < iso(world.clock.now() + 86_400_000)


@pytest.mark.parametrize("seconds", [3600, -3600])
async def test_a_clock_jump_changes_no_run(world: World, seconds: int) -> None:
    """The run is as long as it was to be, by the clock that does not jump."""
    instance_id = await running(world, max_run_minutes=20)
    began = world.clock.monotonic()
    await world.pass_time(300, step=5)
    world.clock.jump(seconds)
    await world.pass_time(300, step=5)
    assert await world.status(instance_id) == "running"
    await world.until_status(instance_id, STOPPED, within=900)
    assert world.clock.monotonic() - began < 1200


async def stuck_delete(world: World) -> tuple[str, dict[str, str]]:
    """Have a stopped instance whose limit deletes it, while Novita refuses deletes."""
    instance_id = await running(world, delete_after_stopped_minutes=10)
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=400)
    await fault(world, kind="call", path="/gpu/instance/delete", status=503, when="before")
    await world.until_status(instance_id, InstanceStatus.TERMINATING, within=1200)
    await world.pass_time(20)
    return instance_id, await at_novita(world, instance_id)


async def test_a_pending_delete_is_withdrawn_when_the_instance_runs(world: World) -> None:
    """A limit deletes only what is in the state that it speaks of."""
    instance_id, body = await stuck_delete(world)
    await directly(world, "start", body)
    await world.until_status(instance_id, RUNNING, within=400)
    await heal(world)
    await world.pass_time(300, step=5)
    assert await alive(world) == [body["instanceId"]]
    assert await calls(world, "delete") > 0


async def test_a_pending_delete_becomes_a_stop_when_the_instance_runs(world: World) -> None:
    """While its image is pulled it cannot be stopped, so it was to be deleted."""
    delays = {"delays": {"pulling": [400, 400]}}
    await world.emulator.call("PATCH", "settings", json=delays)
    instance_id = await limited(world, max_run_minutes=2)
    await fault(world, kind="call", path="/gpu/instance/delete", status=503, when="before")
    await world.until_status(instance_id, InstanceStatus.TERMINATING, within=300)
    with capture_logs() as lines:
        await world.until_status(instance_id, STOPPED, within=600)
    assert not {"sync_failed", "limit_review_failed"} & {line["event"] for line in lines}
    assert await alive(world) == [(await at_novita(world, instance_id))["instanceId"]]
    assert (await world.view(instance_id))["stopReason"] == "maxRunMinutes"


@pytest.mark.parametrize("field", ["limits", "protected"])
async def test_a_pending_delete_is_withdrawn_by_a_change(world: World, field: str) -> None:
    """A removed limit or a new protection ends the delete that waits."""
    instance_id, body = await stuck_delete(world)
    change = InstanceChange(
        frozenset({field}), protected="results" if field == "protected" else None
    )
    await world.do(world.app.changes.change(instance_id, change, actor=TESTER))
    await heal(world)
    await world.pass_time(300, step=5)
    assert await world.status(instance_id) == "stopped"
    assert await alive(world) == [body["instanceId"]]


async def test_a_pending_stop_is_withdrawn_when_the_limit_moves(world: World) -> None:
    """A limit that is raised while its stop waits does not stop the instance."""
    instance_id = await running(world, max_run_minutes=15)
    await fault(world, kind="call", path="/gpu/instance/stop", status=503, when="before")
    await world.until_status(instance_id, InstanceStatus.STOPPING, within=1200)
    change = LimitsChange({"max_run_minutes": 600})
    moved = InstanceChange(frozenset({"limits"}), limits=change)
    await world.do(world.app.changes.change(instance_id, moved, actor=TESTER))
    await heal(world)
    await world.pass_time(300, step=5)
    assert await world.status(instance_id) == "running"


async def test_a_delete_that_a_person_wants_too_is_not_withdrawn(world: World) -> None:
    """The limit that began it is removed, and the instance is deleted all the same."""
    instance_id, _ = await stuck_delete(world)
    await ask(world, OperationKind.DELETE, instance_id)
    change = InstanceChange(frozenset({"limits"}))
    await world.do(world.app.changes.change(instance_id, change, actor=TESTER))
    await heal(world)
    await world.until_status(instance_id, TERMINATED, within=400)
    assert not await alive(world)


async def test_what_a_person_ends_has_no_reason(world: World) -> None:
    """`stopReason` names a limit only while it is the one that ends the run or has ended it."""
    instance_id = await running(world, max_run_minutes=10)
    await world.until_status(instance_id, STOPPED, within=700)
    assert (await world.view(instance_id))["stopReason"] == "maxRunMinutes"
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=400)
    assert "stopReason" not in await world.view(instance_id)


async def test_a_deletion_by_a_person_has_no_reason(world: World) -> None:
    """The limit of a running instance that a person deletes is not named as the reason."""
    instance_id = await running(world, max_run_minutes=600)
    assert (await world.view(instance_id))["stopReason"] == "maxRunMinutes"
    await ask(world, OperationKind.DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=400)
    assert not {"stopReason", "stopsAt"} & set(await world.view(instance_id))


async def test_what_a_limit_deletes_keeps_its_reason(world: World) -> None:
    """The record of a deleted instance says which limit did it."""
    instance_id = await running(world, max_run_minutes=10, on_limit=LimitAction.DELETE)
    await world.until_status(instance_id, TERMINATED, within=900)
    assert (await world.view(instance_id))["stopReason"] == "maxRunMinutes"


async def test_a_run_is_kept_before_it_begins(world: World) -> None:
    """A `keep` while the instance comes up belongs to the run that follows."""
    await world.emulator.call("PATCH", "settings", json={"delays": {"creating": [60, 60]}})
    request = replace(
        REQUEST, limits=LimitSettings(max_run_minutes=15), auto_stop=AutoStop(idle_minutes=15)
    )
    instance_id = await world.create(request)
    await world.until_creates()
    await kept(world, instance_id, 30)
    await world.until_status(instance_id, RUNNING, within=400)
    began = world.clock.monotonic()
    shown = await world.view(instance_id)
    assert shown["autoStop"]["stopsAt"] >= shown["stopsAt"]
    await world.until_status(instance_id, STOPPED, within=3600)
    assert 40 * 60 < world.clock.monotonic() - began <= 45 * 60
    await ask(world, OperationKind.START, instance_id)
    await world.until_status(instance_id, RUNNING, within=400)
    began = world.clock.monotonic()
    await world.until_status(instance_id, STOPPED, within=3600)
    assert world.clock.monotonic() - began <= 16 * 60


async def test_a_stop_at_the_end_of_time_is_kept(world: World) -> None:
    """It moves to the last moment that can be shown."""
    instance_id = await running(world, stop_at=END_OF_TIME - 1)
    after = await kept(world, instance_id, 24 * 60)
    assert after["stopsAt"] == "9999-12-31T23:59:59.999Z"


async def test_the_disk_of_an_adopted_instance_is_not_deleted_by_a_stop(world: World) -> None:
    """A limit that stops never deletes an adopted instance, though it was never seen to run."""
    seeds = {"count": 1, "namePrefix": "theirs", "status": "exited"}
    await world.emulator.call("POST", "seed", json=seeds)
    [row] = await world.emulator.ever()
    await world.pass_time(70, step=5)
    adopted = await adopt(world, row["id"])
    await world.emulator.call("PATCH", "settings", json={"delays": {"starting": [900, 900]}})
    limits = LimitsChange({"stop_at": world.clock.now() + 300_000})
    change = InstanceChange(frozenset({"limits"}), limits=limits)
    await world.do(world.app.changes.change(adopted, change, actor=TESTER))
    await ask(world, OperationKind.START, adopted)
    await world.pass_time(800, step=5)
    assert await alive(world) == [row["id"]]


async def test_a_far_end_of_the_money_is_no_time(world: World) -> None:
    """An amount that would last past the year 9999 gives no `stopsAt`, and breaks nothing."""
    instance_id = await running(world, max_spend=1_000_000 * 100_000)
    upstream_id = (await world.view(instance_id))["upstreamId"]
    price = {"instancePrice": 1}
    await world.emulator.call("PATCH", f"instances/{upstream_id}", json=price)
    await world.pass_time(60, step=5)
    assert "stopsAt" not in await world.view(instance_id)
    await ask(world, OperationKind.STOP, instance_id)
    await world.until_status(instance_id, STOPPED, within=400)
