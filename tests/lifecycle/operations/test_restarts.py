# SPDX-License-Identifier: Apache-2.0
"""A restart is made once, however its answer is lost, and told as done only if it was."""

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
    """Set how long upstream's statuses last."""
    ranges = {name: [length, length] for name, length in seconds.items()}
    await world.emulator.call("PATCH", "settings", json={"delays": ranges})


async def came_to_rest_after_one(world: World, instance_id: str) -> None:
    """See that it runs again, and that one restart was asked for."""
    await world.pass_time(400)
    assert await world.status(instance_id) == "running"
    assert await calls(world, "restart") == 1


async def test_over_between_two_listings(world: World, running: str) -> None:
    """All that is seen of it are other ports."""
    await delays(world, toRestart=0.3, restarting=0.5)
    await world.pass_time(61)
    await fault(world, kind="call", path=PATH, drop=True, when="after", times=1)
    await ask(world, RESTART, running)
    await came_to_rest_after_one(world, running)


async def test_over_while_its_call_waits(
    world: World, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listings that began after the call did are news of it."""
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
    """It was running and has stopped since: the restart is under way."""
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
    """That the call was about to be made is known, so it is not made again."""
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
    """Upstream finds no instance, or the wrong state, each time: it is not told as done."""
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
