# SPDX-License-Identifier: Apache-2.0
"""Auto-stop of whole lives: idle instances are stopped, and nothing on missing signals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection

from novitai.domain.actor import AUTOSTOP
from novitai.domain.event import Event
from novitai.domain.idle import AutoStop, AutoStopChange, IdleSignal
from novitai.domain.instance import InstanceStatus
from novitai.domain.limits import LimitAction
from novitai.domain.operation import OperationKind
from novitai.domain.requests import InstanceChange
from novitai.errors import ValidationFailed
from novitai.store.queries import autostop, events
from tests.domain.making import TESTER
from tests.lifecycle.actions import ask, fault, heal
from tests.lifecycle.world import REQUEST, World, on_both_stores

RUNNING, STOPPED = InstanceStatus.RUNNING, InstanceStatus.STOPPED
METRICS = "*metrics/gpu/instance"
LAST_USED = (IdleSignal.LAST_USED,)


async def running(world: World, *, gpu: Any = 0, **given: Any) -> str:
    """Create an instance with auto-stop whose GPUs have a level; wait until it runs."""
    setting = AutoStop(**{"idle_minutes": 20, **given})
    instance_id = await world.create(replace(REQUEST, auto_stop=setting))
    await world.until_status(instance_id, RUNNING, within=400)
    await level(world, instance_id, gpu=gpu)
    return instance_id


async def level(world: World, instance_id: str, **levels: Any) -> None:
    """Set how busy an instance is at Novita, from now on."""
    upstream_id = (await world.view(instance_id))["upstreamId"]
    await world.emulator.call("POST", f"instances/{upstream_id}/utilization", json=levels)


async def told(world: World, instance_id: str, word: str) -> list[Event]:
    """Return the events `instance.autostop_<word>`."""

    def read(connection: Connection) -> list[Event]:
        log = events.of_instance(connection, instance_id)
        return [one for one in log if one.type.value == f"instance.autostop_{word}"]

    return await world.app.database.read(read)


async def samples(world: World) -> int:
    """Count the calls for metrics."""
    counts: dict[str, int] = (await world.emulator.call("GET", "counts"))["counts"]
    return sum(count for path, count in counts.items() if "metrics" in path)


async def shown(world: World, instance_id: str) -> Mapping[str, Any]:
    """Return the auto-stop of the view."""
    found: Mapping[str, Any] = (await world.view(instance_id))["autoStop"]
    return found


async def patched(world: World, instance_id: str, change: AutoStopChange | None) -> None:
    """Change the setting."""
    patch = InstanceChange(frozenset({"auto_stop"}), auto_stop=change)
    await world.do(world.app.changes.change(instance_id, patch, actor=TESTER))


@on_both_stores
async def test_an_idle_instance_is_stopped(world: World) -> None:
    """It is warned of and then stopped once all its GPUs were idle, with few calls."""
    instance_id = await running(world)
    began = world.clock.monotonic()
    view = await world.view(instance_id)
    assert view["stopReason"] == "autoStop"
    assert view["stopsAt"] == view["autoStop"]["stopsAt"]
    assert view["autoStop"]["state"] == "armed"
    await world.until_status(instance_id, STOPPED, within=2400)
    assert world.clock.monotonic() - began >= 20 * 60 - 400
    assert await samples(world) <= (world.clock.monotonic() - began) / 240 + 2
    [warning] = await told(world, instance_id, "warning")
    [fired] = await told(world, instance_id, "fired")
    assert warning.data["at"] == fired.data["at"]
    assert 280_000 <= fired.at - warning.at <= 420_000
    assert (fired.actor, fired.data["action"]) == (AUTOSTOP, "stop")
    after = await world.view(instance_id)
    assert after["stopReason"] == "autoStop"
    assert "stopsAt" not in after
    assert "stopsAt" not in after["autoStop"]


async def test_one_busy_gpu_keeps_an_instance(world: World) -> None:
    """One of two GPUs at the line is use; when it ends, the idle time begins."""
    instance_id = await running(world, gpu=[0, 5])
    await world.pass_time(3600, step=10)
    assert await world.status(instance_id) == "running"
    assert await told(world, instance_id, "fired") == []
    await level(world, instance_id, gpu=[0, 4.9])
    idle_from = world.clock.monotonic()
    await world.until_status(instance_id, STOPPED, within=2400)
    assert world.clock.monotonic() - idle_from >= 20 * 60 - 30


async def test_a_missing_signal_is_told_and_stops_nothing(world: World) -> None:
    """Without metrics it runs on; that is told after half an hour, and once a day."""
    instance_id = await running(world)
    await fault(world, kind="call", path=METRICS, status=500)
    await world.pass_time(1500, step=10)
    assert await told(world, instance_id, "signal_lost") == []
    await world.pass_time(1800, step=10)
    assert len(await told(world, instance_id, "signal_lost")) == 1
    assert (await shown(world, instance_id))["state"] == "signalLost"
    assert "stopsAt" not in await world.view(instance_id)
    assert await world.status(instance_id) == "running"
    assert not world.app.client.health().down
    await heal(world)
    await world.until_status(instance_id, STOPPED, within=1800)


async def test_a_gap_in_the_metrics_counts_as_use(world: World) -> None:
    """A gap of over two minutes begins the idle time again at its end."""
    instance_id = await running(world)
    await world.pass_time(600, step=10)
    await level(world, instance_id, gap=True)
    await world.pass_time(300, step=10)
    await level(world, instance_id, gpu=0)
    ended = world.clock.monotonic()
    await world.until_status(instance_id, STOPPED, within=2400)
    assert world.clock.monotonic() - ended >= 20 * 60 - 30


async def test_a_use_that_is_told_puts_the_stop_off(world: World) -> None:
    """`last-used` moves the stop at once; with that signal alone no metrics are asked for."""
    instance_id = await running(world, signals=LAST_USED)
    before = (await shown(world, instance_id))["stopsAt"]
    await world.pass_time(900, step=10)
    await world.do(world.app.operating.record_usage(instance_id, None))
    assert (await shown(world, instance_id))["stopsAt"] > before
    used = world.clock.monotonic()
    await world.until_status(instance_id, STOPPED, within=1500)
    assert world.clock.monotonic() - used >= 20 * 60
    assert await samples(world) == 0


@on_both_stores
async def test_it_survives_a_crash_and_a_downtime(world: World) -> None:
    """The time of the downtime is asked for afterwards; a use in it is not overlooked."""
    instance_id = await running(world)
    await world.pass_time(300, step=10)
    await world.end()
    await world.clock.advance(600)
    await level_by_id(world, gpu=80)
    await world.clock.advance(300)
    await level_by_id(world, gpu=0)
    used = world.clock.monotonic()
    await world.clock.advance(900)
    await world.open()
    await world.pass_time(60)
    assert await world.status(instance_id) == "running"
    await world.until_status(instance_id, STOPPED, within=1800)
    assert world.clock.monotonic() - used >= 20 * 60 - 30


async def level_by_id(world: World, **levels: Any) -> None:
    """Set how busy the only instance is at Novita, while no process runs."""
    [row] = await world.emulator.ever()
    await world.emulator.call("POST", f"instances/{row['id']}/utilization", json=levels)


async def test_a_start_begins_the_idle_time_again(world: World) -> None:
    """Nothing of the run before is left after a start."""
    instance_id = await running(world, signals=LAST_USED)
    await world.until_status(instance_id, STOPPED, within=1500)
    await world.pass_time(600, step=10)
    started = world.clock.monotonic()
    await ask(world, OperationKind.START, instance_id)
    await world.until_status(instance_id, RUNNING, within=400)
    assert (await shown(world, instance_id))["state"] == "armed"
    await world.until_status(instance_id, STOPPED, within=1600)
    assert world.clock.monotonic() - started >= 20 * 60
    assert len(await told(world, instance_id, "fired")) == 2


async def test_a_keep_moves_the_stop(world: World) -> None:
    """`keep` works for an instance that auto-stop alone would stop."""
    instance_id = await running(world, signals=LAST_USED)
    await world.pass_time(600, step=10)
    before = world.clock.monotonic()
    kept = await world.do(world.app.instance_limits.keep(instance_id, 60, actor=TESTER))
    assert kept["stopsAt"] == (await shown(world, instance_id))["stopsAt"]
    await world.pass_time(3600, step=10)
    assert await world.status(instance_id) == "running"
    await world.until_status(instance_id, STOPPED, within=1200)
    assert world.clock.monotonic() - before >= 3600


async def test_a_protected_instance_is_stopped_and_not_deleted(world: World) -> None:
    """`action: delete` deletes; with protection it stops, and that is told."""
    setting = AutoStop(20, signals=LAST_USED, action=LimitAction.DELETE)
    request = replace(REQUEST, auto_stop=setting)
    free = await world.create(request)
    held = await world.create(replace(request, name="held", protected_reason="results"))
    for one in (free, held):
        await world.until_status(one, RUNNING, within=600)
    await world.until_status(held, STOPPED, within=1800)
    await world.until_status(free, InstanceStatus.TERMINATED, within=600)
    assert [one.data["cause"] for one in await told(world, held, "failed")] == ["protected"]


async def test_a_stop_without_effect_is_told(world: World) -> None:
    """While Novita refuses the stop, that is told, and the stop follows when it can."""
    instance_id = await running(world, signals=LAST_USED)
    await fault(world, kind="call", path="/gpu/instance/stop", status=500)
    await world.pass_time(1500, step=5)
    assert await world.status(instance_id) != "stopped"
    assert await told(world, instance_id, "failed")
    assert (await world.view(instance_id))["unenforced"] is True
    await heal(world)
    await world.until_status(instance_id, STOPPED, within=300)


async def test_the_setting_is_changed_and_removed(world: World) -> None:
    """A change begins the idle time again; after the removal nothing is asked for or stopped."""
    instance_id = await running(world)
    await world.pass_time(900, step=10)
    await patched(world, instance_id, AutoStopChange({"warn_minutes": 3}))
    found = await shown(world, instance_id)
    assert (found["idleMinutes"], found["warnMinutes"]) == (20, 3)
    await world.pass_time(900, step=10)
    assert await world.status(instance_id) == "running"
    await patched(world, instance_id, None)
    assert "autoStop" not in await world.view(instance_id)
    assert "stopsAt" not in await world.view(instance_id)
    due_at = await world.app.database.read(lambda c: autostop.sample_due_at(c, instance_id))
    assert due_at is None
    before = await samples(world)
    await world.pass_time(1800, step=10)
    assert await world.status(instance_id) == "running"
    assert await samples(world) == before
    with pytest.raises(ValidationFailed):
        await patched(world, instance_id, AutoStopChange({"warn_minutes": 3}))


async def test_a_released_instance_is_neither_sampled_nor_stopped(world: World) -> None:
    """After the release it is not ours: no call is made for it."""
    instance_id = await running(world)
    await world.pass_time(60)
    await world.do(world.app.ownership.release(instance_id, actor=TESTER))
    before = await samples(world)
    await world.pass_time(2400, step=10)
    assert await samples(world) == before
    [row] = await world.emulator.ever()
    assert row["status"] == "running"
