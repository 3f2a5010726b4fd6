# SPDX-License-Identifier: Apache-2.0
"""Fixtures: instances in the statuses that most verbs start from."""

from __future__ import annotations

import pytest

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from tests.lifecycle.actions import ask
from tests.lifecycle.world import World


@pytest.fixture
async def running(world: World) -> str:
    """Return a running instance."""
    instance_id = await world.create()
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=400)
    return instance_id


@pytest.fixture
async def stopped(world: World, running: str) -> str:
    """Return an instance that ran and was stopped."""
    await ask(world, OperationKind.STOP, running)
    await world.until_status(running, InstanceStatus.STOPPED, within=200)
    return running
