# SPDX-License-Identifier: Apache-2.0
"""The metrics of an instance: levels that a test sets, gaps, and their lag (upstream.md §14)."""

from __future__ import annotations

from typing import Any, cast

from tests.emulator.client import Client

METRICS = "/openapi/v1/metrics/gpu/instance"


async def series(client: Client, instance_id: str, seconds: int = 600) -> dict[str, Any]:
    """Return the metrics of the last seconds."""
    begin = int(client.emulator.clock.now()) - seconds
    return cast(
        "dict[str, Any]", await client.get(METRICS, instanceId=instance_id, startTime=begin)
    )


def values(points: list[dict[str, Any]]) -> list[float]:
    """Return the values of a series."""
    return [point["value"] for point in points]


async def test_metrics_lag_and_fall_back_to_defaults(client: Client) -> None:
    """Metrics are a minute old, with one series per GPU; invalid parameters are ignored."""
    instance_id = await client.running(gpuNum=2)
    await client.advance(600)
    reply = await client.get(METRICS, instanceId=instance_id, interval="soon")
    points = cast("list[dict[str, Any]]", reply["cpuUtilization"])
    assert len(points) == 5
    assert int(points[-1]["timestamp"]) == int(client.emulator.clock.now()) - 60
    assert len(cast("Any", reply["gpuUtilization"])["gpuIds"]) == 2
    assert reply == await client.get(METRICS, instanceId=instance_id, interval=3)
    await client.control("PATCH", "/settings", {"metricsLagSeconds": 300})
    later = await client.get(METRICS, instanceId=instance_id)
    points = cast("list[dict[str, Any]]", later["cpuUtilization"])
    assert int(points[-1]["timestamp"]) == int(client.emulator.clock.now()) - 300


async def test_levels_can_be_set_for_each_gpu(client: Client) -> None:
    """The average is that of the GPUs; what was not set keeps its plausible values."""
    instance_id = await client.running(gpuNum=2)
    path = f"/instances/{instance_id}/utilization"
    await client.control("POST", path, {"gpu": [0, 90], "gpuMemory": 40, "cpu": 12.5})
    await client.advance(600)
    reply = await series(client, instance_id, 500)
    gpu = reply["gpuUtilization"]
    assert set(values(gpu["avg"])) == {45}
    assert [set(values(each["items"])) for each in gpu["gpuIds"]] == [{0}, {90}]
    assert set(values(reply["gpuMemUtilization"]["gpuIds"][1]["items"])) == {40}
    assert set(values(reply["cpuUtilization"])) == {12.5}
    assert len(set(values(reply["memUtilization"]))) > 1


async def test_levels_hold_from_their_time_on(client: Client) -> None:
    """A level ends where the next begins; one for an earlier time drops those after it."""
    instance_id = await client.running()
    path = f"/instances/{instance_id}/utilization"
    now = int(client.emulator.clock.now())
    await client.advance(600)
    await client.control("POST", path, {"at": now + 60, "gpu": 80})
    await client.control("POST", path, {"at": now + 300, "gpu": 0, "disk": 5})
    points = (await series(client, instance_id))["gpuUtilization"]["avg"]
    by_time = {int(point["timestamp"]): point["value"] for point in points}
    assert {by for at, by in by_time.items() if now + 60 <= at < now + 300} == {80}
    assert {by for at, by in by_time.items() if at >= now + 300} == {0}
    shown = await client.control("POST", path, {"at": now + 100, "cpu": 1})
    assert shown == await client.control("GET", path)
    assert shown["levels"] == [
        {"at": now + 60, "gpu": [80]},
        {"at": now + 100, "gpu": [80], "cpu": [1]},
    ]


async def test_metrics_can_have_gaps(client: Client) -> None:
    """A gap in one metric or in all has no points, until a level is set again."""
    instance_id = await client.running()
    path = f"/instances/{instance_id}/utilization"
    now = int(client.emulator.clock.now())
    await client.advance(900)
    await client.control("POST", path, {"at": now, "gpu": 50, "cpu": 50})
    await client.control("POST", path, {"at": now + 120, "gpu": None})
    await client.control("POST", path, {"at": now + 240, "gap": True})
    await client.control("POST", path, {"at": now + 480, "gpu": 70})
    reply = await series(client, instance_id, 900)
    gpu = [int(point["timestamp"]) - now for point in reply["gpuUtilization"]["avg"]]
    cpu = [int(point["timestamp"]) - now for point in reply["cpuUtilization"]]
    assert gpu == [*range(0, 120, 15), *range(480, 841, 15)]
    assert cpu == list(range(0, 240, 15))


async def test_only_a_running_instance_has_metrics(client: Client) -> None:
    """There are no points from the time in which it was stopped or reclaimed."""
    instance_id = await client.running(billingMode="spot")
    await client.advance(300)
    await client.control("POST", f"/instances/{instance_id}/reclaim", {"immediately": True})
    stopped = client.emulator.clock.now()
    await client.advance(600)
    points = (await series(client, instance_id, 900))["cpuUtilization"]
    assert points
    assert all(int(point["timestamp"]) < stopped for point in points)


async def test_wrong_levels_are_refused(client: Client) -> None:
    """The number of GPUs must fit, a percentage is at most 100, and something must be given."""
    path = f"/instances/{await client.running()}/utilization"
    for body, says in (
        ({}, "at least one"),
        ({"gap": True, "gpu": 1}, "gap"),
        ({"gpu": [1, 2]}, "1 GPUs"),
        ({"cpu": 101}, "cpu"),
    ):
        assert says in str(await client.control_refused("POST", path, body, 400))
