# SPDX-License-Identifier: Apache-2.0
"""Spot instances: a protected hour, an hour's notice, then the reclaim."""

from __future__ import annotations

from tests.emulator.client import Client


async def spot(client: Client) -> str:
    """Create a running spot instance and return its ID."""
    return await client.running(billingMode="spot")


async def test_an_untouched_spot_instance_runs_on(client: Client) -> None:
    """Without a planned reclaim, spotStatus stays `running` and no reclaim time is shown."""
    instance_id = await spot(client)
    await client.advance(30 * 86_400)
    shown = await client.instance(instance_id)
    assert (shown["spotStatus"], shown["spotReclaimTime"]) == ("running", "0")


async def test_a_notice_is_followed_by_the_reclaim(client: Client) -> None:
    """The instance is notified, then reclaiming, then exited and terminated."""
    instance_id = await spot(client)
    now = client.emulator.clock.now()
    await client.control("POST", f"/instances/{instance_id}/notice", {})
    shown = await client.instance(instance_id)
    assert (shown["status"], shown["spotStatus"]) == ("running", "notified")
    assert shown["spotReclaimTime"] == str(int(now + 3600))
    refused = await client.refused("/gpu/instance/migrate", {"instanceId": instance_id})
    assert refused["message"] == "invalid state change"

    await client.advance(3601)
    shown = await client.instance(instance_id)
    assert (shown["status"], shown["spotStatus"]) == ("stopping", "reclaiming")
    await client.advance(60)
    shown = await client.instance(instance_id)
    assert (shown["status"], shown["spotStatus"]) == ("exited", "terminated")
    assert shown["spotReclaimTime"] != "0"
    assert shown["portMappings"] == []


async def test_the_first_hour_is_protected(client: Client) -> None:
    """With `protect`, the notice comes when the instance is an hour old."""
    instance_id = await spot(client)
    await client.control("POST", f"/instances/{instance_id}/notice", {"protect": True})
    assert (await client.instance(instance_id))["spotStatus"] == "running"
    await client.advance(3600)
    assert (await client.instance(instance_id))["spotStatus"] == "notified"


async def test_a_lifetime_gives_notice_by_itself(client: Client) -> None:
    """`spotLifetimeSeconds` sets the age at which the notice comes."""
    await client.control("PATCH", "/settings", {"spotLifetimeSeconds": 5400})
    instance_id = await spot(client)
    await client.advance(3600)
    assert (await client.instance(instance_id))["spotStatus"] == "running"
    await client.advance(1800)
    assert (await client.instance(instance_id))["spotStatus"] == "notified"
    await client.advance(3700)
    assert await client.status(instance_id) == "exited"


async def test_a_reclaimed_instance_can_be_moved_or_started(client: Client) -> None:
    """After a reclaim, the instance can be migrated or started and is a normal spot instance."""
    for operation in ("migrate", "start"):
        instance_id = await spot(client)
        await client.control("POST", f"/instances/{instance_id}/reclaim", {"immediately": True})
        assert await client.status(instance_id) == "exited"
        await client.post(f"/gpu/instance/{operation}", {"instanceId": instance_id})
        await client.advance(300)
        shown = await client.instance(instance_id)
        assert shown["spotStatus"] == "running"
        assert shown["status"] == ("exited" if operation == "migrate" else "running")


async def test_deleting_during_the_notice_is_not_undone_by_the_reclaim(client: Client) -> None:
    """A removed instance stays removed after its reclaim time."""
    instance_id = await spot(client)
    await client.control("POST", f"/instances/{instance_id}/notice", {})
    await client.post("/gpu/instance/delete", {"instanceId": instance_id})
    await client.advance(4000)
    assert await client.rows() == []


async def test_only_spot_instances_are_reclaimed(client: Client) -> None:
    """The control API refuses to reclaim an on-demand instance."""
    instance_id = await client.running()
    error = await client.control_refused("POST", f"/instances/{instance_id}/reclaim", {}, 400)
    assert "not a spot instance" in str(error["error"])
