# SPDX-License-Identifier: Apache-2.0
"""A listing that somebody asked for."""

from __future__ import annotations

from tests.domain.making import TESTER
from tests.lifecycle.world import World


async def test_a_requested_sync_is_an_operation(world: World) -> None:
    """It lists the account and ends."""
    operation_id = await world.do(world.app.operating.sync(actor=TESTER))
    await world.pass_time(2)
    operation = await world.app.history.operation(operation_id)
    assert operation.done
    assert operation.instance_id is None


async def test_requested_syncs_that_wait_are_one(world: World) -> None:
    """Ten at once list the account no more often than one."""
    await world.app.jobs.stop(0)
    replies = [await world.do(world.app.operating.sync(actor=TESTER)) for _ in range(10)]
    assert len(set(replies)) == 1
