# SPDX-License-Identifier: Apache-2.0
"""Utilization is read from Novita, seldom, and its failure concerns nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from novitai.domain.instance import InstanceStatus
from novitai.errors import FieldError, NotFound, ValidationFailed
from novitai.lifecycle.queries.utilization import TTL, UtilizationWindow
from novitai.upstream.breaker import THRESHOLD, BreakerState
from novitai.upstream.errors import UpstreamError
from novitai.upstream.models import UpstreamUtilization
from tests.lifecycle.actions import fault, heal
from tests.lifecycle.world import REQUEST, World, on_both_stores

METRICS = "*metrics/gpu/instance"
LAST_HOUR = UtilizationWindow()


@pytest.fixture
async def busy(world: World) -> str:
    """Return an instance of two GPUs that has run for ten minutes, one of them at 90 percent."""
    instance_id = await world.create()
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=400)
    upstream_id = (await world.view(instance_id))["upstreamId"]
    levels = {"gpu": [0, 90], "gpuMemory": 40, "cpu": 12.5, "memory": 30, "disk": 5}
    await world.emulator.call("POST", f"instances/{upstream_id}/utilization", json=levels)
    await world.pass_time(600, step=60)
    return instance_id


async def metric_calls(world: World) -> int:
    """Count the calls for metrics."""
    counts: dict[str, int] = (await world.emulator.call("GET", "counts"))["counts"]
    return sum(count for path, count in counts.items() if "metrics" in path)


async def read(world: World, instance_id: str, **window: Any) -> UpstreamUtilization:
    """Read the utilization of an instance."""
    return await world.app.utilization.read(instance_id, UtilizationWindow(**window))


@on_both_stores
async def test_the_series_of_an_instance(world: World, busy: str) -> None:
    """Each series has Novita's values in the order of time; that of the GPUs is their average."""
    now = world.clock.now()
    found = await read(world, busy, begin=now - 300_000, end=now - 120_000, interval=60)
    values = (found.gpu, found.gpu_memory, found.cpu, found.memory, found.disk)
    assert [{point.percent for point in series} for series in values] == [
        {45},
        {40},
        {12.5},
        {30},
        {5},
    ]
    times = [point.at for point in found.gpu]
    assert [at - times[0] for at in times] == [0, 60_000, 120_000, 180_000]
    assert abs(times[0] - (now - 300_000)) < 2_000


async def test_an_answer_is_repeated_for_fifteen_seconds(world: World, busy: str) -> None:
    """The same question is asked once in 15 seconds, another one at once."""
    before = await metric_calls(world)
    first = await read(world, busy)
    await world.clock.advance(TTL - 0.001)
    assert await read(world, busy) is first
    assert await metric_calls(world) == before + 1
    await read(world, busy, interval=60)
    await world.clock.advance(0.001)
    await read(world, busy)
    assert await metric_calls(world) == before + 3


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
async def test_a_failure_concerns_this_figure_alone(world: World, busy: str, status: int) -> None:
    """No breaker opens, health stays up and other calls go on; one line an hour tells it."""
    await fault(world, kind="call", path=METRICS, status=status)
    with capture_logs() as lines:
        for _ in range(THRESHOLD + 1):
            with pytest.raises(UpstreamError):
                await read(world, busy)
    told = [line for line in lines if line["event"] == "utilization_unavailable"]
    assert len(told) == 1
    assert await metric_calls(world) == THRESHOLD + 1
    assert not world.app.client.health().down
    assert set(world.app.client.breaker_states().values()) == {BreakerState.CLOSED}
    assert "figures" not in world.app.client.breaker_states()
    began = world.clock.monotonic()
    await world.app.client.clusters()
    assert world.clock.monotonic() == began
    await heal(world)
    assert (await read(world, busy)).gpu
    await world.clock.advance(3600)
    await fault(world, kind="call", path=METRICS, status=status)
    with capture_logs() as lines, pytest.raises(UpstreamError):
        await read(world, busy)
    assert "utilization_unavailable" in [line["event"] for line in lines]


async def test_an_instance_that_is_not_at_novita_is_not_asked_for(world: World, busy: str) -> None:
    """Before its purchase and after its end all series are empty, without a call."""
    await fault(world, kind="call", path="/gpu/instance/create", status=429)
    waiting = await world.create(REQUEST)
    before = await metric_calls(world)
    assert await read(world, waiting) == UpstreamUtilization()
    assert await metric_calls(world) == before
    with pytest.raises(NotFound):
        await read(world, "inst_0_unknown")


@pytest.mark.parametrize(
    ("begin", "end", "interval", "field"),
    [
        (0, 0, None, "from"),
        (1, None, None, "from"),
        (-32 * 86_400_000, None, None, "from"),
        (-86_400_000, None, 15, "interval"),
        (-86_400_000, None, None, None),
        (-86_400_000, None, 87, None),
        (-31 * 86_400_000, 86_400_000, None, None),
    ],
)
def test_which_windows_are_allowed(
    begin: int, end: int | None, interval: int | None, field: str | None
) -> None:
    """A window has a length, at most 31 days and at most 1,000 steps; its end is at most now."""
    now = 1_760_000_000_000
    window = UtilizationWindow(now + begin, None if end is None else now + end, interval)
    if field is None:
        window.check(now)
        first, last, step = window.bounds(now)
        assert (last - first) // (step * 1000) <= 1000
        return
    with pytest.raises(ValidationFailed) as refused:
        window.check(now)
    [wrong] = refused.value.details or ()
    assert isinstance(wrong, FieldError)
    assert wrong.field == field
