# SPDX-License-Identifier: Apache-2.0
"""Start, stop, restart and delete against Novita's documented quirks."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from novitai.clock import iso
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.errors import Conflict, NotFound
from novitai.lifecycle.commands.idempotency import IdempotencyKey, Reply
from novitai.lifecycle.commands.instance_actions import Accepted
from tests.domain.making import TESTER
from tests.lifecycle.actions import ask, fault, upstream
from tests.lifecycle.world import REQUEST, World, on_both_stores

START, STOP = OperationKind.START, OperationKind.STOP
RESTART, DELETE = OperationKind.RESTART, OperationKind.DELETE
RUNNING, STOPPED = InstanceStatus.RUNNING, InstanceStatus.STOPPED
TERMINATED = InstanceStatus.TERMINATED


@on_both_stores
async def test_a_whole_life(world: World, running: str) -> None:
    """Stop, start, restart and delete succeed and append their events."""
    before = await world.view(running)
    assert (await ask(world, STOP, running))["status"] == "stopping"
    await world.until_status(running, STOPPED, within=200)
    assert "readyAt" not in await world.view(running)
    assert (await ask(world, START, running))["status"] == "starting"
    await world.until_status(running, RUNNING, within=400)
    after = await world.view(running)
    assert after["connectionDetails"]["ssh"] != before["connectionDetails"]["ssh"]
    assert (await ask(world, RESTART, running))["status"] == "starting"
    await world.until_status(running, RUNNING, within=400)
    assert (await ask(world, DELETE, running))["status"] == "terminating"
    await world.until_status(running, TERMINATED, within=200)
    assert not (await upstream(world, running))["live"]
    assert await world.events(running) == [
        f"instance.{word}"
        for word in [
            "created",
            "starting",
            "running",
            "stopping",
            "stopped",
            "starting",
            "running",
            "starting",
            "running",
            "terminating",
            "terminated",
        ]
    ]


@pytest.mark.parametrize("kind", [START, STOP, DELETE])
async def test_doing_what_is_done_does_nothing(
    world: World, running: str, kind: OperationKind
) -> None:
    """A verb whose state is reached gives 200 without an operation or a call."""
    if kind is not START:
        await ask(world, kind, running)
        await world.until_status(running, STOPPED if kind is STOP else TERMINATED, within=200)
    before = (await world.emulator.call("GET", "counts"))["counts"]
    assert (await ask(world, kind, running))["operation"] is None
    await world.pass_time(5)
    after = (await world.emulator.call("GET", "counts"))["counts"]
    assert {k: v for k, v in before.items() if "POST" in k} == {
        k: v for k, v in after.items() if "POST" in k
    }


async def test_what_the_state_does_not_allow_is_refused(world: World, stopped: str) -> None:
    """A verb that the state does not allow gives 409 INVALID_STATE."""
    with pytest.raises(Conflict) as refusal:
        await ask(world, RESTART, stopped)
    assert refusal.value.code == "INVALID_STATE"


async def test_another_operation_is_in_progress(world: World) -> None:
    """Another verb gives 409 OPERATION_IN_PROGRESS; the same verb gives the same operation."""
    instance_id = await world.create()
    with pytest.raises(Conflict) as refusal:
        await ask(world, STOP, instance_id)
    assert refusal.value.code == "OPERATION_IN_PROGRESS"
    await world.until_status(instance_id, RUNNING, within=400)
    first, second = await ask(world, STOP, instance_id), await ask(world, STOP, instance_id)
    assert first["operation"] == second["operation"]


async def test_an_unknown_instance_is_not_found(world: World) -> None:
    """An unknown instance gives 404 INSTANCE_NOT_FOUND."""
    with pytest.raises(NotFound):
        await ask(world, STOP, "inst_0_nope")


async def test_a_name_that_two_bear_is_ambiguous(world: World) -> None:
    """A name of two records gives 409 AMBIGUOUS_NAME, unless one is ended."""
    first, second = await world.create(), await world.create()
    with pytest.raises(Conflict) as refusal:
        await world.do(world.app.operating.ask_by_name(DELETE, "my_instance", actor=TESTER))
    assert refusal.value.code == "AMBIGUOUS_NAME"
    assert first in str(refusal.value.details)
    assert second in str(refusal.value.details)
    await ask(world, DELETE, first)
    await world.until_status(first, TERMINATED, within=400)
    await world.do(world.app.operating.ask_by_name(DELETE, "my_instance", actor=TESTER))
    await world.until_status(second, TERMINATED, within=400)


@pytest.mark.parametrize(("kind", "path"), [(STOP, "stop"), (START, "start")])
async def test_an_invalid_state_change_that_worked(
    world: World, running: str, kind: OperationKind, path: str
) -> None:
    """Novita answers 400 to a call that worked: the listing decides."""
    if kind is START:
        await ask(world, STOP, running)
        await world.until_status(running, STOPPED, within=200)
    await fault(
        world, kind="call", path=f"/gpu/instance/{path}", method="POST", status=400, when="after"
    )
    await ask(world, kind, running)
    await world.until_status(running, STOPPED if kind is STOP else RUNNING, within=400)
    assert "error" not in await world.view(running)


async def test_a_stop_that_never_works_goes_back_to_running(world: World, running: str) -> None:
    """After three calls without effect the instance is running, with an error."""
    ready_at = (await world.view(running))["readyAt"]
    await fault(world, kind="call", path="/gpu/instance/stop", method="POST", status=400)
    await ask(world, STOP, running)
    await world.until_status(running, RUNNING, within=700)
    view = await world.view(running)
    assert view["error"]["code"] == "STOP_FAILED"
    assert view["readyAt"] == ready_at
    counts = (await world.emulator.call("GET", "counts"))["counts"]
    assert counts["POST /gpu/instance/stop"] == 3


async def test_a_start_without_capacity_stays_stopped(world: World, stopped: str) -> None:
    """The instance has an error, is not deleted, and can be started again."""
    await fault(world, kind="capacity", product="gpu-basic.8c32g", region="US-WEST-01")
    await ask(world, START, stopped)
    await world.pass_time(10)
    view = await world.view(stopped)
    assert view["status"] == "stopped"
    assert view["error"]["code"] == "NO_CAPACITY"
    assert (await upstream(world, stopped))["live"]
    await world.emulator.call("DELETE", "faults")
    await ask(world, START, stopped)
    await world.until_status(stopped, RUNNING, within=400)
    assert "error" not in await world.view(stopped)


async def test_a_start_that_ends_in_a_status_error_has_failed(world: World, stopped: str) -> None:
    """The instance is reaped by the policy and can be started again."""
    await fault(world, kind="outcome", operation="start", result="statusError")
    await ask(world, START, stopped)
    await world.until_status(stopped, InstanceStatus.FAILED, within=700)
    await world.pass_time(120)
    await world.emulator.call("DELETE", "faults")
    await ask(world, START, stopped)
    await world.until_status(stopped, RUNNING, within=400)


@pytest.mark.parametrize("reply", ["empty", "state"])
async def test_any_reply_to_a_verb_will_do(world: World, running: str, reply: str) -> None:
    """The bodies of lifecycle answers are not read."""
    await world.emulator.call("PATCH", "settings", json={"lifecycleReply": reply})
    await ask(world, STOP, running)
    await world.until_status(running, STOPPED, within=200)


@on_both_stores
async def test_delete_wins_over_an_ambiguous_create(world: World) -> None:
    """The delete settles the attempt and removes what it bought."""
    create = {"kind": "call", "path": "/gpu/instance/create", "method": "POST"}
    await fault(world, **create, drop=True, when="after")
    instance_id = await world.create()
    await world.until_creates()
    await ask(world, DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=400)
    await world.pass_time(60)
    [row] = await world.emulator.ever()
    assert not row["live"]
    assert "instance.operation_cancelled" in await world.events(instance_id)


async def test_delete_of_what_was_never_bought(world: World) -> None:
    """Once the lost call is proven absent, the delete ends."""
    create = {"kind": "call", "path": "/gpu/instance/create", "method": "POST"}
    await fault(world, **create, drop=True, when="before")
    instance_id = await world.create()
    await world.until_creates()
    await ask(world, DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=400)
    assert await world.emulator.creates() == 1


async def test_not_found_right_after_a_create_is_no_proof(world: World) -> None:
    """The delete is repeated until the new instance is gone."""
    await world.emulator.call("PATCH", "settings", json={"deleteNotFoundSeconds": 120})
    instance_id = await world.create()
    await world.pass_time(10)
    await ask(world, DELETE, instance_id)
    await world.until_status(instance_id, TERMINATED, within=600)
    assert not (await upstream(world, instance_id))["live"]


@pytest.mark.parametrize("linger", [0, 300])
async def test_removed_rows_may_linger_or_vanish(world: World, running: str, linger: int) -> None:
    """The deletion ends in both cases."""
    await world.emulator.call("PATCH", "settings", json={"removedLingerSeconds": linger})
    await ask(world, DELETE, running)
    await world.until_status(running, TERMINATED, within=200)


async def test_lagging_and_leaky_lists_mislead_nobody(world: World, running: str) -> None:
    """Omitted or repeated rows do not change a running instance."""
    wanted = (await upstream(world, running))["id"]
    await fault(world, kind="list", omit=wanted, every=2)
    await fault(world, kind="list", repeat=wanted, every=3)
    await world.pass_time(400)
    assert await world.status(running) == "running"
    assert await world.events(running) == [
        "instance.created",
        "instance.starting",
        "instance.running",
    ]


async def test_an_instance_deleted_behind_our_back(world: World, running: str) -> None:
    """A single instance is terminated after ten minutes of absence."""
    wanted = (await upstream(world, running))["id"]
    await world.emulator.call("POST", f"instances/{wanted}/delete", json={})
    await world.pass_time(500, step=5)
    assert await world.status(running) == "running"
    await world.until_status(running, TERMINATED, within=400)
    assert (await world.view(running))["error"]["code"] == "GONE"


async def test_an_instance_stopped_behind_our_back(world: World, running: str) -> None:
    """A stop from outside is followed and reported as drift."""
    wanted = (await upstream(world, running))["id"]
    await world.emulator.call("POST", f"instances/{wanted}/stop", json={})
    await world.until_status(running, STOPPED, within=300)
    assert "instance.drift" in await world.events(running)
    assert "error" not in await world.view(running)


async def test_a_start_behind_our_back_is_probed(world: World, stopped: str) -> None:
    """An instance started outside counts as running once it is ready."""
    wanted = (await upstream(world, stopped))["id"]
    await world.emulator.call("PATCH", f"instances/{wanted}", json={"status": "running"})
    await world.until_status(stopped, RUNNING, within=300)
    assert (await world.view(stopped))["readyAt"]


async def test_a_spot_instance_reclaimed(world: World) -> None:
    """A reclaimed instance is stopped with its reason, and the reclaim was announced."""
    request = replace(REQUEST, billing_mode=REQUEST.billing_mode.SPOT, region_fallback=True)
    instance_id = await world.create(request)
    await world.until_status(instance_id, RUNNING, within=400)
    wanted = (await upstream(world, instance_id))["id"]
    await world.emulator.call("POST", f"instances/{wanted}/reclaim", json={})
    await world.until_status(instance_id, STOPPED, within=600)
    assert (await world.view(instance_id))["error"]["code"] == "SPOT_RECLAIMED"


async def test_a_spot_notice_is_told(world: World) -> None:
    """The notice is an event with the time of the reclaim."""
    request = replace(REQUEST, billing_mode=REQUEST.billing_mode.SPOT, region_fallback=True)
    instance_id = await world.create(request)
    await world.until_status(instance_id, RUNNING, within=400)
    wanted = (await upstream(world, instance_id))["id"]
    await world.emulator.call("POST", f"instances/{wanted}/notice", json={})
    await world.pass_time(70)
    assert "instance.spot_reclaim_scheduled" in await world.events(instance_id)
    listed = await world.app.client.list_instances()
    [row] = [one for one in listed.instances if one.id == wanted]
    assert row.spot_reclaim_at is not None
    assert (await world.view(instance_id))["spotReclaimAt"] == iso(row.spot_reclaim_at)


async def test_a_migration_that_never_ends_has_failed(world: World, running: str) -> None:
    """It fails after an hour; nothing is deleted, since its data are moving."""
    wanted = (await upstream(world, running))["id"]
    await world.emulator.call("POST", f"instances/{wanted}/hold", json={"status": "migrating"})
    await world.until_status(running, InstanceStatus.MIGRATING, within=100)
    await world.until(lambda: _is(world, running, "failed"), within=3800, step=30)
    assert (await world.view(running))["error"]["code"] == "MIGRATION_TIMEOUT"
    await world.pass_time(600, step=5)
    counts = (await world.emulator.call("GET", "counts"))["counts"]
    assert "POST /gpu/instance/stop" not in counts
    # Once it has arrived and runs, it is stopped, as any failed instance.
    await world.emulator.call("POST", f"instances/{wanted}/hold", json={"status": None})
    await world.pass_time(900, step=5)
    assert (await upstream(world, running))["status"] == "exited"
    assert "instance.cleaned_up" in await world.events(running)
    assert (await upstream(world, running))["live"]


async def _is(world: World, instance_id: str, status: str) -> bool:
    return await world.status(instance_id) == status


@pytest.mark.parametrize("word", ["freezing"])
async def test_a_word_that_means_nothing_to_us(world: World, running: str, word: str) -> None:
    """For an unknown status, ours stays, the view shows Novita's, and drift is reported."""
    wanted = (await upstream(world, running))["id"]
    await world.emulator.call("POST", f"instances/{wanted}/hold", json={"status": word})
    await world.pass_time(70)
    view = await world.view(running)
    assert view["status"] == "running"
    assert view["upstreamStatus"] == word
    assert "instance.drift" in await world.events(running)


async def test_stop_all(world: World, running: str) -> None:
    """Stops the running instances and gives a reason for each of the others."""
    other = await world.create(replace(REQUEST, name="other"))
    done = await world.do(world.app.operating.stop_all(actor=TESTER))
    assert [one.instance.id for one in done.accepted] == [running]
    assert [(one.instance_id, one.reason) for one in done.skipped] == [
        (other, "OPERATION_IN_PROGRESS")
    ]
    await world.until_status(running, STOPPED, within=200)


async def test_a_creation_can_be_cancelled_before_it_buys(world: World) -> None:
    """A create that has bought nothing can be cancelled."""
    await world.app.jobs.stop(0)
    instance_id = await world.create()
    operation = str((await world.view(instance_id))["operation"]["id"])
    await world.do(world.app.operating.cancel(operation, actor=TESTER))
    assert await world.status(instance_id) == "terminated"
    await world.reopen()
    await world.pass_time(20)
    assert await world.emulator.creates() == 0


async def test_a_creation_that_has_bought_cannot_be_cancelled(world: World) -> None:
    """A create that has bought gives 409; the instance can be deleted instead."""
    instance_id = await world.create()
    await world.pass_time(10)
    operation = str((await world.view(instance_id))["operation"]["id"])
    with pytest.raises(Conflict):
        await world.do(world.app.operating.cancel(operation, actor=TESTER))


async def test_passwords_are_in_the_credentials_alone(world: World, running: str) -> None:
    """Only the credentials contain the SSH password, not views or events."""
    found = await world.app.operating.credentials(running)
    password = str(found["sshPassword"])
    assert password
    assert password not in str(await world.view(running))
    page = await world.app.history.of_instance(running)
    assert password not in str([event.data for event in page.events])


def rendered(accepted: Accepted) -> Reply:
    """Render the result of a verb."""
    return Reply(202, {}, orjson.dumps({"status": accepted.instance.status}))


@on_both_stores
async def test_a_verb_is_idempotent_by_key(world: World, running: str) -> None:
    """The same key gives the same bytes, even after the state has changed."""
    key = IdempotencyKey("key_1", f"POST /api/instances/{running}/stop", "k", "d")
    first = await world.app.commands.run(
        world.app.operating.ask(STOP, running, actor=TESTER), rendered, key=key
    )
    await world.until_status(running, STOPPED, within=200)
    again = await world.app.commands.run(
        world.app.operating.ask(STOP, running, actor=TESTER), rendered, key=key
    )
    assert again.body == first.body
    assert again.replayed


async def test_a_cancelled_start_leaves_everything_as_it_was(world: World, running: str) -> None:
    """A previous failure and its error are restored too."""
    await fault(world, kind="outcome", operation="restart", result="statusError")
    await ask(world, RESTART, running)
    await world.until_status(running, InstanceStatus.FAILED, within=900)
    await world.pass_time(120)
    before = await world.view(running)
    await world.app.jobs.stop(0)
    operation = (await ask(world, START, running))["operation"]
    assert await world.status(running) == "starting"
    await world.do(world.app.operating.cancel(operation, actor=TESTER))
    after = await world.view(running)
    assert (after["status"], after["error"]) == (before["status"], before["error"])
