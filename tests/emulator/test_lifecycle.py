# SPDX-License-Identifier: Apache-2.0
"""The state machine: order of statuses, durations and refusals."""

from __future__ import annotations

import random

import pytest

from novitai.emulator.config import Delays
from tests.emulator.client import Client


async def seen_until(client: Client, instance_id: str, end: str, step: float = 0.5) -> list[str]:
    """Return the statuses that an instance shows until `end`; advances the virtual time."""
    seen: list[str] = []
    while not seen or seen[-1] != end:
        status = await client.status(instance_id)
        if not seen or seen[-1] != status:
            seen.append(status)
        client.emulator.clock.advance(step)
        assert len(seen) < 12, seen
    return seen


async def test_a_create_goes_through_all_its_statuses(client: Client) -> None:
    """A new instance is pending, toCreate, creating, pulling and then running."""
    instance_id = await client.create()
    assert await seen_until(client, instance_id, "running") == [
        "pending",
        "toCreate",
        "creating",
        "pulling",
        "running",
    ]


async def test_stop_start_and_restart_go_through_their_statuses(client: Client) -> None:
    """Each operation shows its `to...` status, its `...ing` status and its final status."""
    instance_id = await client.running()
    await client.post("/gpu/instance/restart", {"instanceId": instance_id})
    assert await seen_until(client, instance_id, "running") == [
        "toRestart",
        "restarting",
        "running",
    ]
    await client.post("/gpu/instance/stop", {"instanceId": instance_id})
    assert await seen_until(client, instance_id, "exited") == ["toStop", "stopping", "exited"]
    await client.post("/gpu/instance/start", {"instanceId": instance_id})
    assert await seen_until(client, instance_id, "running") == ["toStart", "starting", "running"]


async def test_delete_works_in_any_status_and_then_the_instance_is_gone(client: Client) -> None:
    """Even a pending instance can be deleted; a removed instance is not found."""
    instance_id = await client.create()
    await client.post("/gpu/instance/delete", {"instanceId": instance_id})
    assert await client.status(instance_id) in {"toRemove", "removing"}
    await client.advance(60)
    error = await client.refused("/gpu/instance/delete", {"instanceId": instance_id})
    assert error["reason"] == "RESOURCE_NOT_FOUND"
    assert await client.rows() == []


async def test_a_second_delete_changes_nothing(client: Client) -> None:
    """A second delete is accepted and does not delay the removal."""
    instance_id = await client.running()
    await client.post("/gpu/instance/delete", {"instanceId": instance_id})
    before = client.emulator.instances[instance_id].removed_at
    await client.advance(2)
    await client.post("/gpu/instance/delete", {"instanceId": instance_id})
    assert client.emulator.instances[instance_id].removed_at == before


@pytest.mark.parametrize(
    ("status", "operation"),
    [
        ("exited", "stop"),
        ("exited", "restart"),
        ("running", "start"),
        ("pulling", "stop"),
        ("pulling", "edit"),
        ("migrating", "migrate"),
        ("toRemove", "start"),
    ],
)
async def test_an_operation_in_the_wrong_status_is_refused(
    client: Client, status: str, operation: str
) -> None:
    """The reply is 400 "invalid state change", and the status does not change."""
    [instance_id] = await client.seed(count=1, status=status)
    error = await client.refused(f"/gpu/instance/{operation}", {"instanceId": instance_id})
    assert error["message"] == "invalid state change"
    assert await client.status(instance_id) == status


@pytest.mark.parametrize(
    ("way", "least", "most"),
    [
        (("pending", "to_create", "creating", "pulling"), 60, 240),
        (("to_start", "starting"), 30, 180),
        (("to_stop", "stopping"), 0, 60),
        (("to_restart", "restarting", "boot"), 0, 60),
    ],
)
def test_operations_take_as_long_as_promised(
    way: tuple[str, ...], least: float, most: float
) -> None:
    """At speed 1: create 60-240 s, start 30-180 s, stop and restart at most 60 s."""
    delays, rng = Delays(), random.Random(3)
    for _ in range(200):
        assert least <= sum(delays.draw(rng, name) for name in way) <= most


async def test_an_idle_instance_costs_no_task(client: Client) -> None:
    """The status follows from the clock, so a jump of 30 days needs no background work."""
    instance_id = await client.create()
    await client.advance(86_400 * 30)
    assert await client.status(instance_id) == "running"


async def test_a_migration_returns_to_where_it_began(client: Client) -> None:
    """After a migration the instance has its old status; during it, it shows the job."""
    running, [exited] = await client.running(), await client.seed(count=1, status="exited")
    for instance_id, end in ((running, "running"), (exited, "exited")):
        job_id = (await client.post("/gpu/instance/migrate", {"instanceId": instance_id}))["jobId"]
        assert await client.status(instance_id) == "migrating"
        assert (await client.instance(instance_id))["jobs"] == [
            {"id": job_id, "type": "instanceMigrate"}
        ]
        await client.advance(200)
        assert await client.status(instance_id) == end
        assert (await client.instance(instance_id))["jobs"] == []


async def test_an_upgrade_resets_the_container(client: Client) -> None:
    """An upgrade goes through toReset, resetting and pulling and applies the new values."""
    instance_id = await client.running()
    await client.post(
        "/gpu/instance/upgrade",
        {
            "instanceId": instance_id,
            "imageUrl": "ubuntu:26.04",
            "envs": [{"key": "A", "value": "b"}],
            "command": "",
            "save": True,
            "networkVolume": {"volumeMounts": []},
        },
    )
    assert await seen_until(client, instance_id, "running") == [
        "toReset",
        "resetting",
        "pulling",
        "running",
    ]
    shown = await client.instance(instance_id)
    assert shown["imageUrl"] == "ubuntu:26.04"
    assert shown["envs"] == [{"key": "A", "value": "b"}]


async def test_a_monthly_instance_cannot_be_given_back(client: Client) -> None:
    """A prepaid instance cannot be deleted before its term ends."""
    instance_id = await client.running(productId="4090.16c62g", month=1)
    error = await client.refused("/gpu/instance/delete", {"instanceId": instance_id})
    assert error["reason"] == "PREPAID_INSTANCE_NOT_SUPPORT_RELEASE"
    await client.advance(31 * 86_400)
    await client.post("/gpu/instance/delete", {"instanceId": instance_id})
