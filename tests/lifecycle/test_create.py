# SPDX-License-Identifier: Apache-2.0
"""An instance is born: bought once, watched, probed, and told of."""

from __future__ import annotations

from novitai.domain.instance import InstanceStatus

from tests.lifecycle.conftest import World


async def test_an_accepted_request_runs_and_was_bought_once(world: World) -> None:
    """A request goes through creating and starting to running with a single create call."""
    instance_id = await world.create()
    assert await world.status(instance_id) == "creating"
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=300)
    assert await world.emulator.creates() == 1
    assert await world.events(instance_id) == [
        "instance.created",
        "instance.starting",
        "instance.running",
    ]
