# SPDX-License-Identifier: Apache-2.0
"""A listing that somebody asked for."""

from __future__ import annotations

import pytest

from novitai.lifecycle.reconcile.loop import LEASE_MS, PASS_SECONDS
from novitai.store.queries import operations
from novitai.upstream.window import SendWindow
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


async def test_a_slow_listing_keeps_a_short_lease(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs once, however long it takes; if its process died, another would soon take over."""
    began = 0

    async def once(window: SendWindow | None = None) -> None:
        nonlocal began
        if window is not None:  # not the periodic listing
            began += 1
            await world.clock.sleep(60)

    monkeypatch.setattr(world.app.sync, "once", once)
    operation_id = await world.do(world.app.operating.sync(actor=TESTER))
    for _ in range(5):
        await world.pass_time(10)
        row = await world.app.database.read(lambda c: operations.load(c, operation_id))
        assert row is not None
        assert not row.done
        assert 0 < (row.lease_until or 0) - world.clock.now() <= LEASE_MS
    await world.pass_time(20)
    assert (await world.app.history.operation(operation_id)).done
    assert began == 1


async def test_an_endless_listing_ends_at_its_deadline(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operation fails and says why."""

    async def once(window: SendWindow | None = None) -> None:
        if window is not None:
            await world.clock.sleep(1_000_000)

    monkeypatch.setattr(world.app.sync, "once", once)
    operation_id = await world.do(world.app.operating.sync(actor=TESTER))
    await world.pass_time(PASS_SECONDS + 10, step=5)
    operation = await world.app.history.operation(operation_id)
    assert operation.error == (
        "UPSTREAM_UNAVAILABLE",
        "Listing the account took longer than 30 minutes",
    )
