# SPDX-License-Identifier: Apache-2.0
"""Outages and lagging lists during a verb: no unseen billing, no operation that hangs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest

from novitai.domain.instance import Instance, InstanceStatus, LaunchSpec
from novitai.domain.marker import Marker, upstream_name
from novitai.domain.operation import Attempt, AttemptState, OperationKind
from novitai.errors import Conflict
from novitai.lifecycle.operations.probes import Round, Silence
from novitai.store.engine.errors import StoreUnavailable
from novitai.store.queries import attempts, operations
from novitai.upstream.models import Listing
from tests.domain.making import TESTER
from tests.lifecycle.actions import ask, calls, directly, fault, heal, upstream
from tests.lifecycle.world import REQUEST, World

START, STOP = OperationKind.START, OperationKind.STOP
RESTART, DELETE = OperationKind.RESTART, OperationKind.DELETE
RUNNING, FAILED = InstanceStatus.RUNNING, InstanceStatus.FAILED


async def test_a_delete_is_not_over_before_the_instance_was_ever_listed(world: World) -> None:
    """Absence from lagging lists before the delete proves nothing."""
    await world.emulator.call("PATCH", "settings", json={"deleteNotFoundSeconds": 60})
    await fault(world, kind="list", lagSeconds=60)
    instance_id = await world.create()
    await world.pass_time(20)
    await ask(world, DELETE, instance_id)
    await world.pass_time(30)
    await heal(world)
    await world.pass_time(600, step=5)
    assert await world.status(instance_id) == "terminated"
    assert not any(row["live"] for row in await world.emulator.ever())


async def test_one_listing_without_it_does_not_end_a_delete(world: World, running: str) -> None:
    """An instance omitted once, while it is being removed, does not end the delete."""
    wanted = (await upstream(world, running))["id"]
    await fault(world, kind="outcome", operation="delete", result="stuck")
    await fault(world, kind="list", omit=wanted, times=1)
    await ask(world, DELETE, running)
    await world.pass_time(30)
    assert await world.status(running) == "terminating"
    await world.emulator.call("POST", f"instances/{wanted}/delete", json={})
    await world.until_status(running, InstanceStatus.TERMINATED, within=200)


async def test_what_was_found_gone_and_is_back_is_live_again(world: World, running: str) -> None:
    """A record that ended only by absence is revived when its instance is listed."""
    wanted = (await upstream(world, running))["id"]
    await fault(world, kind="list", omit=wanted)
    await fault(world, kind="call", path="/gpu/instance", method="GET", status=404)
    await world.until_status(running, InstanceStatus.TERMINATED, within=1200)
    await heal(world)
    await world.until_status(running, RUNNING, within=120)
    assert not await world.app.ownership.unmanaged()
    assert "instance.reappeared" in await world.events(running)
    assert "error" not in await world.view(running)


async def test_a_restart_through_an_outage_comes_to_rest(world: World, running: str) -> None:
    """If Novita never accepts the call, the instance is running again, with an error."""
    await fault(world, kind="call", path="/gpu/instance/restart", method="POST", status=503)
    await ask(world, RESTART, running)
    await world.pass_time(720, step=5)
    await heal(world)
    await world.until_status(running, RUNNING, within=300)
    assert (await world.view(running))["error"]["code"] == "UPSTREAM_UNAVAILABLE"


async def test_an_outage_is_no_reason_to_delete(world: World) -> None:
    """An instance that ran is stopped after the outage, even if that took long."""
    await fault(world, kind="outcome", operation="create", result="neverBoots")
    instance_id = await world.create()
    await world.pass_time(500, step=5)
    await fault(world, kind="call", path="/gpu/instance/stop", method="POST", status=503)
    await world.until_status(instance_id, FAILED, within=300)
    await world.pass_time(900, step=5)
    await heal(world)
    await world.pass_time(300, step=5)
    assert (await upstream(world, instance_id))["status"] == "exited"
    assert await calls(world, "delete") == 0


async def test_a_list_that_is_away_is_no_reason_to_delete(world: World, stopped: str) -> None:
    """While listings fail, a stop has no verdict and the data are kept."""
    await fault(world, kind="outcome", operation="start", result="neverBoots")
    await ask(world, START, stopped)
    await world.until_status(stopped, FAILED, within=900)
    await fault(world, kind="call", path="/gpu/instances", status=503)
    await world.pass_time(900, step=5)
    assert await calls(world, "delete") == 0
    assert (await upstream(world, stopped))["live"]


async def test_no_start_is_given_up_while_the_list_is_away(world: World, stopped: str) -> None:
    """A deadline that passes while listings fail is judged after the next listing."""
    await fault(world, kind="call", path="/gpu/instances", status=503)
    await ask(world, START, stopped)
    await world.pass_time(700, step=5)
    assert await world.status(stopped) == "starting"
    await heal(world)
    await world.until_status(stopped, RUNNING, within=120)


async def test_a_reap_does_not_believe_an_old_exit(world: World, stopped: str) -> None:
    """A reap ignores the status listed before a start that failed."""
    await fault(world, kind="outcome", operation="start", result="neverBoots")
    await fault(world, kind="call", path="/gpu/instances", status=503)
    await ask(world, START, stopped)
    await world.pass_time(700, step=5)
    await heal(world)
    await world.until_status(stopped, FAILED, within=120)
    await world.pass_time(600, step=5)
    assert (await upstream(world, stopped))["status"] == "exited"


async def test_a_start_from_failed_is_not_judged_by_the_old_error(
    world: World, stopped: str
) -> None:
    """The listed error of the last failure does not fail the new start."""
    await fault(world, kind="outcome", operation="start", result="statusError")
    await ask(world, START, stopped)
    await world.until_status(stopped, FAILED, within=700)
    await world.pass_time(120)
    await heal(world)
    await fault(world, kind="list", lagSeconds=30)
    await ask(world, START, stopped)
    await world.until_status(stopped, RUNNING, within=500)


async def test_a_restart_is_not_over_before_it_has_happened(world: World) -> None:
    """With lagging lists, `running` may be from before the restart."""
    instance_id = await world.create(replace(REQUEST, template_id="107802"))
    await world.until_status(instance_id, RUNNING, within=400)
    await fault(world, kind="list", lagSeconds=20)
    await world.pass_time(70)
    await ask(world, RESTART, instance_id)
    await world.pass_time(10)
    assert await world.status(instance_id) == "starting"
    await world.until_status(instance_id, RUNNING, within=400)
    assert (await upstream(world, instance_id))["status"] == "running"
    words = await world.events(instance_id)
    assert words.count("instance.running") == 2


async def test_following_cannot_be_cancelled(world: World, stopped: str) -> None:
    """A follow cannot be cancelled, since the instance would stay in a transient status."""
    wanted = (await upstream(world, stopped))["id"]
    await fault(world, kind="outcome", operation="start", result="neverBoots")
    await directly(world, "start", {"instanceId": wanted})
    await world.until_status(stopped, InstanceStatus.STARTING, within=300)
    operation = (await world.view(stopped))["operation"]
    assert operation["kind"] == "follow"
    with pytest.raises(Conflict):
        await world.do(world.app.operating.cancel(operation["id"], actor=TESTER))
    await world.until_status(stopped, FAILED, within=900)


async def test_what_was_removed_cannot_be_started(world: World) -> None:
    """A removed instance cannot be started (409) and stays failed."""
    await world.emulator.call("PATCH", "settings", json={"removedLingerSeconds": 3600})
    await fault(world, kind="outcome", operation="create", result="statusError")
    instance_id = await world.create()
    await world.until_status(instance_id, FAILED, within=600)
    await world.pass_time(200, step=5)
    with pytest.raises(Conflict):
        await ask(world, START, instance_id)
    assert await world.status(instance_id) == "failed"


async def test_of_two_purchases_one_stays(world: World) -> None:
    """If both attempts have bought, the older instance is kept and the other deleted."""
    await world.end()
    await world.open(work=False)
    await world.app.jobs.stop(0)
    instance_id = await world.create(replace(REQUEST, template_id="107802"))
    operation = await world.app.database.read(lambda c: operations.running(c, instance_id))
    assert operation is not None
    bought: list[str] = []
    for number in range(2):
        attempt_id = world.app.ids.attempt()
        name = upstream_name("my_instance", Marker(world.app.installation_id, attempt_id))
        made = await directly(
            world,
            "create",
            {
                "name": name,
                "productId": "gpu-basic.8c32g",
                "gpuNum": 2,
                "rootfsSize": 60,
                "imageUrl": "ubuntu",
                "kind": "gpu",
            },
        )
        bought.append(made["id"])
        now = world.clock.now()
        attempt = Attempt(
            id=attempt_id,
            operation_id=operation.id,
            instance_id=instance_id,
            upstream_name=name,
            product_id="gpu-basic.8c32g",
            cluster_id="us-west-1",
            region="US-WEST-01",
            price=1,
            state=AttemptState.SENT,
            created_at=now + number,
            send_by=now + 10_000,
            image="ubuntu",
            clock_offset=int(world.emulator.app.state.emulator.clock.now() * 1000) - now,
        )

        def write(connection: Any, attempt: Attempt = attempt, made: Any = made) -> None:
            attempts.insert(connection, attempt)
            attempts.record_result(
                connection, attempt.id, AttemptState.BOUGHT, upstream_id=made["id"]
            )

        await world.app.database.write(write)
    await world.reopen()
    await world.until_status(instance_id, RUNNING, within=500)
    await world.pass_time(60)
    assert (await world.view(instance_id))["upstreamId"] == bought[0]
    assert [row["id"] for row in await world.emulator.ever() if row["live"]] == [bought[0]]


async def test_an_exit_during_the_last_probe_is_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the input of a step changed while it ran, the step is repeated."""
    instance_id = await world.create()

    async def exits_meanwhile(instance: Instance, _spec: LaunchSpec) -> Round:
        change = {"status": "exited"}
        await world.emulator.call("PATCH", f"instances/{instance.upstream_id}", json=change)
        await world.clock.advance(0.05)
        await world.app.sync.once()
        return ()

    monkeypatch.setattr(world.app.prober, "not_ready", exits_meanwhile)
    await world.until_status(instance_id, FAILED, within=400)
    assert (await world.view(instance_id))["error"]["code"] == "INSTANCE_EXITED"


async def test_a_delete_of_what_vanished_unseen_ends(world: World) -> None:
    """A delete of an instance that was never listed and is not found ends."""
    await fault(world, kind="list", lagSeconds=90)
    instance_id = await world.create()
    await world.pass_time(5)
    wanted = (await world.view(instance_id))["upstreamId"]
    await world.emulator.call("POST", f"instances/{wanted}/delete", json={})
    await world.pass_time(5)
    await ask(world, DELETE, instance_id)
    await world.pass_time(60)
    await heal(world)
    await world.until_status(instance_id, InstanceStatus.TERMINATED, within=600)


async def test_a_restart_whose_answer_is_lost_is_not_made_twice(world: World, running: str) -> None:
    """The listing shows the outcome, since a second call would interrupt it."""
    await fault(world, kind="call", path="/gpu/instance/restart", drop=True, when="after", times=1)
    await ask(world, RESTART, running)
    await world.pass_time(5)
    await world.until_status(running, RUNNING, within=400)
    await world.pass_time(120)
    assert await calls(world, "restart") == 1
    assert (await world.events(running)).count("instance.running") == 2


async def test_a_restart_that_never_arrived_is_made_again(world: World, running: str) -> None:
    """A restart without effect for a minute is repeated."""
    await fault(world, kind="call", path="/gpu/instance/restart", drop=True, times=1)
    await ask(world, RESTART, running)
    await world.pass_time(55)
    assert await calls(world, "restart") == 1
    await world.until_status(running, RUNNING, within=400)
    assert await calls(world, "restart") == 2
    assert (await upstream(world, running))["starts"] == 2


async def test_an_id_that_is_taken_is_not_believed(world: World, running: str) -> None:
    """If a create is answered with another record's ID, a listing finds the right one."""
    taken = (await upstream(world, running))["id"]
    body = orjson.dumps({"id": taken}).decode()
    await fault(
        world, kind="call", path="/gpu/instance/create", rawBody=body, when="after", times=1
    )
    other = await world.create(replace(REQUEST, name="other"))
    await world.until_status(other, RUNNING, within=600)
    assert (await world.view(other))["upstreamId"] != taken
    assert await world.status(running) == "running"
    assert len([row for row in await world.emulator.ever() if row["live"]]) == 2


async def test_what_was_bought_is_written_though_the_database_stumbles(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of a create call is stored in spite of database errors."""
    await fault(world, kind="list", omit="my-instance*")
    write, stumbles = world.app.database.write, [2]

    async def stumbling(act: Any, **options: Any) -> Any:
        if stumbles[0] and await world.emulator.creates():
            stumbles[0] -= 1
            raise StoreUnavailable("the database is busy")
        return await write(act, **options)

    monkeypatch.setattr(world.app.database, "write", stumbling)
    instance_id = await world.create()
    await world.pass_time(30)
    assert stumbles == [0]
    assert [one.state for one in await world.attempts(instance_id)] == [AttemptState.BOUGHT]


async def test_a_stop_that_waits_its_turn_is_not_late(world: World, running: str) -> None:
    """The deadline of a stop counts from its call, not from the request."""
    await world.app.jobs.stop(0)
    await ask(world, STOP, running)
    await world.pass_time(1200, step=5)
    await world.reopen()
    await world.until_status(running, InstanceStatus.STOPPED, within=300)
    assert "stop_refused" not in " ".join(await world.events(running))


async def test_a_closed_region_does_not_hide_the_others(world: World) -> None:
    """If Novita refuses one cluster, the offers of the others are used."""
    await fault(world, kind="call", path="/products", status=400, reason="BAD_CLUSTER", nth=1)
    instance_id = await world.create(replace(REQUEST, region=None))
    await world.until_status(instance_id, RUNNING, within=600)


async def test_what_took_effect_cannot_be_cancelled(world: World, stopped: str) -> None:
    """A start that worked, though its answer was lost, cannot be cancelled."""
    await fault(world, kind="call", path="/gpu/instance/start", drop=True, when="after")
    asked = await ask(world, START, stopped)
    await world.pass_time(0.5, step=0.25)
    assert await calls(world, "start") == 1
    with pytest.raises(Conflict):
        await world.do(world.app.operating.cancel(asked["operation"], actor=TESTER))
    await heal(world)
    await world.until_status(stopped, RUNNING, within=500)


async def test_one_id_for_two_creates_is_believed_of_neither(world: World) -> None:
    """If two creates get one unknown ID, listings find both instances."""
    body = orjson.dumps({"id": "deadbeefdeadbeef"}).decode()
    path = "/gpu/instance/create"
    await fault(world, kind="call", path=path, rawBody=body, when="after", times=2)
    one, other = await asyncio.gather(world.create(), world.create(replace(REQUEST, name="other")))
    await world.pass_time(30)
    for instance_id in (one, other):
        await ask(world, DELETE, instance_id)
        await world.until_status(instance_id, InstanceStatus.TERMINATED, within=1800)
    await world.pass_time(300, step=5)
    assert not any(row["live"] for row in await world.emulator.ever())


async def test_a_storm_of_news_keeps_no_deadline_from_being_met(
    world: World, stopped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The readiness deadline holds, even if each listing restarts the probes."""
    await world.reopen(sync_interval_seconds=2.0)

    async def silent(_instance: Instance, spec: LaunchSpec) -> Round:
        await world.clock.sleep(3)
        return tuple(Silence(port, "no answer") for port in spec.watched_ports())

    monkeypatch.setattr(world.app.prober, "not_ready", silent)
    monkeypatch.setattr(world.app.prober, "_quick", 0.0)
    await ask(world, START, stopped)

    async def up() -> bool:
        return (await world.view(stopped)).get("upstreamStatus") == "running"

    await world.until(up, within=400)
    await fault(world, kind="list", omit="my-instance*")
    await world.pass_time(700)
    assert (await world.view(stopped))["error"]["code"] == "READINESS_TIMEOUT"


async def test_a_listing_that_never_ends_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch, logged_defects: list[str]
) -> None:
    """A sync pass is cancelled after half an hour, so that the next can begin."""
    begun: list[float] = []
    list_instances = world.app.client.list_instances

    async def unending() -> Listing:
        begun.append(world.clock.monotonic())
        if len(begun) == 1:
            await asyncio.Event().wait()
        return await list_instances()

    monkeypatch.setattr(world.app.client, "list_instances", unending)
    await world.pass_time(1_790, step=10)
    assert len(begun) <= 1
    await world.pass_time(120, step=10)
    assert len(begun) >= 2
    assert begun[1] - begun[0] >= 1_800
    logged_defects.remove("sync_failed")
