# SPDX-License-Identifier: Apache-2.0
"""The create: an instance is bought once, watched, probed and reported."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import AttemptState
from novitai.settings import FailedInstancePolicy
from novitai.store import tables
from tests.lifecycle.actions import CREATE, fault, heal, runs_having_bought_one
from tests.lifecycle.world import REQUEST, World, on_both_stores

ALL = {"kind": "call", "path": "*"}


@on_both_stores
async def test_an_accepted_request_runs_and_was_bought_once(world: World) -> None:
    """A create goes from creating via starting to running with one create call."""
    instance_id = await world.create()
    assert await world.status(instance_id) == "creating"
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=300)
    assert await world.emulator.creates() == 1
    assert await world.events(instance_id) == [
        "instance.created",
        "instance.starting",
        "instance.running",
    ]


async def test_a_running_instance_shows_how_to_reach_it(world: World) -> None:
    """The view has endpoints, connection details, price and times, and no password."""
    instance_id = await world.create()
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=300)
    view = await world.view(instance_id)
    assert {mapping["port"] for mapping in view["portMappings"]} == {8888, 6006, 9000}
    assert view["connectionDetails"]["ssh"].startswith("ssh://root@127.0.0.1:")
    assert view["hourlyPrice"] == pytest.approx(0.6)
    assert view["region"] == "US-WEST-01"
    assert view["readyAt"] >= view["createdAt"]
    assert "operation" not in view
    assert "error" not in view
    assert "assword" not in str(view)


async def test_the_template_is_resolved_into_the_create_call(world: World) -> None:
    """The call has the template's image, ports and envs, overridden by the request's."""
    instance_id = await world.create(replace(REQUEST, envs={"MINE": "1"}))
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=300)
    [row] = await world.emulator.ever()
    assert set(row["ports"]) == {"8888/http", "6006/http", "9000/tcp"}
    assert row["name"].startswith("my-instance-nv")


@on_both_stores
async def test_a_lost_answer_is_settled_by_listing(world: World) -> None:
    """If the answer is lost after the purchase, a listing finds the instance."""
    await fault(world, **CREATE, drop=True, when="after", times=1)
    instance_id = await world.create()
    await runs_having_bought_one(world, instance_id)
    assert await world.emulator.creates() == 1


@on_both_stores
async def test_a_lost_request_is_bought_again_only_when_absence_is_proven(world: World) -> None:
    """A lost request is repeated after five listings over the absence time."""
    await fault(world, **CREATE, drop=True, when="before", times=1)
    instance_id = await world.create()
    await world.pass_time(world.settings.absent_after_seconds - 5)
    assert await world.emulator.creates() == 1
    await runs_having_bought_one(world, instance_id)
    assert await world.emulator.creates() == 2
    states = [attempt.state for attempt in await world.attempts(instance_id)]
    assert states == [AttemptState.ABSENT, AttemptState.BOUGHT]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("status", [500, 502, 504, 408])
async def test_a_server_error_is_ambiguous(world: World, status: int, when: str) -> None:
    """A 5xx or 408 is ambiguous; in the end one instance lives."""
    await fault(world, **CREATE, status=status, when=when, times=1)
    instance_id = await world.create()
    await runs_having_bought_one(world, instance_id)


@pytest.mark.parametrize("body", ["empty", "malformed", "list"])
async def test_a_success_that_cannot_be_read_is_ambiguous(world: World, body: str) -> None:
    """A 200 without an ID is settled by a listing."""
    await fault(world, **CREATE, body=body, times=1)
    instance_id = await world.create()
    await runs_having_bought_one(world, instance_id)
    assert await world.emulator.creates() == 1


async def test_a_purchase_that_shows_up_late_is_adopted(world: World) -> None:
    """A purchase listed late, but within the absence time, is assigned."""
    await fault(world, **CREATE, drop=True, when="after", times=1)
    await fault(world, kind="list", lagSeconds=100)
    instance_id = await world.create()
    await runs_having_bought_one(world, instance_id)
    assert await world.emulator.creates() == 1


@on_both_stores
async def test_a_purchase_that_shows_up_too_late_is_deleted(world: World) -> None:
    """A purchase listed after a second one is deleted as surplus, with an event."""
    await fault(world, **CREATE, drop=True, when="after", times=1)
    await fault(world, kind="list", lagSeconds=400)
    instance_id = await world.create()
    await world.pass_time(world.settings.absent_after_seconds + 60)
    assert await world.emulator.creates() == 2
    await heal(world)
    await runs_having_bought_one(world, instance_id)
    assert "instance.surplus_deleted" in await world.events(instance_id)


async def test_a_capacity_refusal_leads_to_the_next_candidate(world: World) -> None:
    """If the cheapest is out of stock at the purchase, the next is bought."""
    await fault(world, **CREATE, status=400, reason="INSUFFICIENT_RESOURCE", times=1)
    instance_id = await world.create(replace(REQUEST, region_fallback=True))
    await runs_having_bought_one(world, instance_id)
    attempts = {attempt.state: attempt for attempt in await world.attempts(instance_id)}
    first, second = attempts[AttemptState.REFUSED], attempts[AttemptState.BOUGHT]
    kept = select(tables.attempts.c.reason).where(tables.attempts.c.id == first.id)
    reason = await world.app.database.read(lambda connection: connection.scalar(kept))
    assert reason == "INSUFFICIENT_RESOURCE"
    assert (second.product_id, second.cluster_id) != (first.product_id, first.cluster_id)
    assert "instance.attempt_refused" in await world.events(instance_id)


async def test_a_refusal_for_another_reason_is_told(world: World) -> None:
    """A refusal for another reason than capacity is shown to the user."""
    await fault(world, **CREATE, status=400, reason="BALANCE_NOT_ENOUGH", message="no money")
    instance_id = await world.create()
    await world.until_status(instance_id, InstanceStatus.FAILED, within=300)
    error = (await world.view(instance_id))["error"]
    assert error["code"] == "UPSTREAM_REFUSED"
    assert "BALANCE_NOT_ENOUGH" in error["message"]


async def test_a_429_waits_and_keeps_the_candidate(world: World) -> None:
    """After a 429 the same candidate is bought after the pause."""
    await fault(world, **CREATE, status=429, retryAfter=7, times=2)
    instance_id = await world.create()
    await runs_having_bought_one(world, instance_id)
    attempts = await world.attempts(instance_id)
    assert [attempt.state for attempt in attempts] == [
        AttemptState.NOT_SENT,
        AttemptState.NOT_SENT,
        AttemptState.BOUGHT,
    ]
    assert len({attempt.product_id for attempt in attempts}) == 1


async def test_a_refused_key_holds_everything(world: World) -> None:
    """After a 401 health is down, and the instance is bought once the key is valid."""
    instance_id = await world.create()
    await fault(world, **ALL, status=401)
    await world.pass_time(60)
    assert await world.status(instance_id) == "creating"
    assert world.app.client.health().down
    await heal(world)
    await runs_having_bought_one(world, instance_id)


async def test_the_placement_deadline_ends_in_failure(world: World) -> None:
    """A create past the placement deadline fails with the upstream error."""
    await world.reopen(placement_deadline_seconds=120)
    await fault(world, **CREATE, status=401)
    instance_id = await world.create()
    await world.until_status(instance_id, InstanceStatus.FAILED, within=200)
    assert (await world.view(instance_id))["error"]["code"] == "UPSTREAM_UNAVAILABLE"


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ("statusError", "INSTANCE_FAILED"),
        ("exited", "INSTANCE_EXITED"),
        ("removed", "INSTANCE_REMOVED"),
    ],
)
async def test_a_create_that_ends_badly_has_failed_and_is_reaped(
    world: World, result: str, code: str
) -> None:
    """Under the policy `stop`, an instance that never ran is deleted."""
    await world.emulator.call("PATCH", "settings", json={"removedLingerSeconds": 60})
    await fault(world, kind="outcome", operation="create", result=result)
    instance_id = await world.create()
    await world.until_status(instance_id, InstanceStatus.FAILED, within=1200)
    assert (await world.view(instance_id))["error"]["code"] == code
    await world.pass_time(300)
    assert not any(row["live"] for row in await world.emulator.ever())
    assert await world.status(instance_id) == "failed"


async def test_what_ran_and_never_served_is_stopped(world: World) -> None:
    """An instance that ran and is not ready after ten minutes is stopped."""
    await fault(world, kind="outcome", operation="create", result="neverBoots")
    instance_id = await world.create()
    await world.until_status(instance_id, InstanceStatus.FAILED, within=700)
    assert (await world.view(instance_id))["error"]["code"] == "READINESS_TIMEOUT"
    await world.pass_time(200)
    [row] = await world.emulator.ever()
    assert row["status"] == "exited"
    assert (await world.events(instance_id))[-1] == "instance.cleaned_up"


@pytest.mark.parametrize(
    ("policy", "left"),
    [(FailedInstancePolicy.KEEP, ["running"]), (FailedInstancePolicy.DELETE, [])],
)
async def test_the_policy_decides_what_becomes_of_a_failed_instance(
    world: World, policy: FailedInstancePolicy, left: list[str]
) -> None:
    """`keep` leaves it as it is; `delete` deletes it even if it ran."""
    await world.reopen(failed_instance_policy=policy)
    await fault(world, kind="outcome", operation="create", result="neverBoots")
    instance_id = await world.create()
    await world.until_status(instance_id, InstanceStatus.FAILED, within=700)
    await world.pass_time(200)
    assert [row["status"] for row in await world.emulator.ever() if row["live"]] == left


@on_both_stores
async def test_a_worker_that_ends_loses_nothing(world: World) -> None:
    """Steps, deadlines and probes continue in the next process."""
    ids = [await world.create(replace(REQUEST, name=f"box-{number}")) for number in range(5)]
    for _ in range(4):
        await world.pass_time(20)
        await world.reopen()
    for instance_id in ids:
        await world.until_status(instance_id, InstanceStatus.RUNNING, within=300)
    assert await world.emulator.creates() == 5
