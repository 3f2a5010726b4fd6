# SPDX-License-Identifier: Apache-2.0
"""A restart is made once, even if its answer is lost, and succeeds only if it took place."""

from __future__ import annotations

from typing import Any

import pytest

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.store.queries import operations
from novitai.upstream.errors import Timeout
from novitai.upstream.gateway import UpstreamGateway
from tests.lifecycle.actions import ask, calls, fault, upstream
from tests.lifecycle.world import World

RESTART, RUNNING = OperationKind.RESTART, InstanceStatus.RUNNING
PATH = "/gpu/instance/restart"


async def delays(world: World, **seconds: float) -> None:
    """Set the durations of upstream's statuses."""
    ranges = {name: [length, length] for name, length in seconds.items()}
    await world.emulator.call("PATCH", "settings", json={"delays": ranges})


async def came_to_rest_after_one(world: World, instance_id: str) -> None:
    """Check that the instance runs again after exactly one restart call."""
    await world.pass_time(400)
    assert await world.status(instance_id) == "running"
    assert await calls(world, "restart") == 1


async def test_over_between_two_listings(world: World, running: str) -> None:
    """Only the ports show that the restart took place."""
    await delays(world, toRestart=0.3, restarting=0.5)
    await world.pass_time(61)
    await fault(world, kind="call", path=PATH, drop=True, when="after", times=1)
    await ask(world, RESTART, running)
    await came_to_rest_after_one(world, running)


async def test_over_while_its_call_waits(
    world: World, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listings that began after the call count as newer than it."""
    await delays(world, toRestart=2, restarting=8)
    act = UpstreamGateway.act

    async def slow(
        self: UpstreamGateway, operation: Any, path: str, body: Any, window: Any
    ) -> None:
        await act(self, operation, path, body, window)
        if path == PATH:
            await world.clock.sleep(14.9)
            raise Timeout("no answer", sent=True)

    monkeypatch.setattr(UpstreamGateway, "act", slow)
    await ask(world, RESTART, running)
    await came_to_rest_after_one(world, running)


async def test_seen_stopped_on_the_way(world: World, running: str) -> None:
    """An instance that was listed as stopped since the call is being restarted."""
    wanted = (await upstream(world, running))["id"]
    await delays(world, toRestart=10, restarting=10)
    await fault(world, kind="call", path=PATH, drop=True, when="after", times=1)
    await ask(world, RESTART, running)
    await world.pass_time(1)
    await world.emulator.call("POST", f"instances/{wanted}/hold", json={"status": "exited"})
    await world.pass_time(25)
    await world.emulator.call("POST", f"instances/{wanted}/hold", json={"status": None})
    await came_to_rest_after_one(world, running)


async def test_killed_between_the_call_and_its_commit(
    world: World, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intended call is committed before it, so it is not repeated."""
    act = UpstreamGateway.act

    async def killed(
        self: UpstreamGateway, operation: Any, path: str, body: Any, window: Any
    ) -> None:
        await act(self, operation, path, body, window)
        if path == PATH:
            world.at_work.crash()

    monkeypatch.setattr(UpstreamGateway, "act", killed)
    await ask(world, RESTART, running)
    await world.pass_time(2)
    monkeypatch.setattr(UpstreamGateway, "act", act)
    await world.end()
    await world.open()
    await came_to_rest_after_one(world, running)


@pytest.mark.parametrize("status", [400, 404])
async def test_never_taken(world: World, running: str, status: int) -> None:
    """If Novita finds no instance or a wrong state each time, the restart fails."""
    await fault(world, kind="call", path=PATH, status=status)
    asked = await ask(world, RESTART, running)
    await world.until_status(running, RUNNING, within=900)
    operation = await world.app.database.read(
        lambda connection: operations.load(connection, asked["operation"])
    )
    assert operation is not None
    assert operation.outcome == "failed"
    assert (await world.view(running))["error"]["code"] == "UPSTREAM_UNAVAILABLE"
    assert (await upstream(world, running))["starts"] == 1
    assert await calls(world, "restart") <= 3
