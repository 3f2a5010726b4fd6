# SPDX-License-Identifier: Apache-2.0
"""The runner: one claim at a time, fencing, waking and releasing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from novitai.domain.operation import OperationKind, Outcome
from novitai.lifecycle.operations.steps import Again, Claimed, Done, Step
from novitai.store.queries import operations
from novitai.upstream.errors import RateLimited, ServerError, Timeout, UpstreamError
from tests.domain.making import TESTER
from tests.lifecycle.world import REQUEST, World, on_both_stores


class Scripted:
    """A verb whose steps are set by the test."""

    kind = OperationKind.CREATE

    def __init__(self, act: Callable[[Claimed], Awaitable[Step]]) -> None:
        self._act = act

    async def step(self, claimed: Claimed) -> Step:
        """Run the step of the test."""
        return await self._act(claimed)


async def operation_of(world: World, instance_id: str) -> Any:
    """Load the unfinished operation of an instance."""
    return await world.app.database.read(lambda c: operations.running(c, instance_id))


@pytest.fixture
async def idle(world: World) -> World:
    """A control plane that accepts and reads requests, but runs no steps."""
    await world.app.stop()
    await world.open(work=False)
    await world.app.jobs.stop(0)
    return world


@on_both_stores
async def test_a_worker_that_lost_its_lease_changes_nothing(idle: World) -> None:
    """A result is dropped if another worker claimed the operation meanwhile."""
    instance_id = await idle.create()
    operation = await operation_of(idle, instance_id)

    async def lose(claimed: Claimed) -> Step:
        late = claimed.operation.lease_until or 0
        taken = await idle.app.database.write(
            lambda c: operations.claim(c, operation.id, now=late, until=late + 1000)
        )
        assert taken is not None
        assert taken.token == claimed.operation.token + 1
        return Done(Outcome.FAILED, changes={"failed": True})

    assert await idle.app.runner.run(Scripted(lose), operation.id) is None
    assert idle.app.runner.fenced_writes == 1
    assert await idle.status(instance_id) == "creating"


@on_both_stores
async def test_one_operation_is_worked_on_by_one(idle: World) -> None:
    """A second claim during the lease does nothing."""
    instance_id = await idle.create()
    operation = await operation_of(idle, instance_id)

    async def again(claimed: Claimed) -> Step:
        assert await idle.app.runner.run(Scripted(never), operation.id) is None
        return Again(claimed.operation.phase, idle.clock.now() + 5000)

    async def never(_claimed: Claimed) -> Step:
        raise AssertionError("claimed twice")

    assert await idle.app.runner.run(Scripted(again), operation.id) == idle.clock.now() + 5000


async def test_a_nudge_during_a_step_is_not_lost(idle: World) -> None:
    """A nudge during a step makes the operation due at once afterwards."""
    instance_id = await idle.create()
    operation = await operation_of(idle, instance_id)

    async def woken(claimed: Claimed) -> Step:
        now = idle.clock.now()
        await idle.app.database.write(lambda c: operations.wake(c, [operation.id], now=now))
        return Again(claimed.operation.phase, now + 60_000)

    assert await idle.app.runner.run(Scripted(woken), operation.id) == idle.clock.now()


async def test_upstream_trouble_pauses_longer_each_time(idle: World) -> None:
    """After upstream errors the step is retried; the pause doubles up to a minute."""
    instance_id = await idle.create()
    operation = await operation_of(idle, instance_id)

    async def trouble(_claimed: Claimed) -> Step:
        raise ServerError("it burns", http_status=500)

    pauses = []
    for _ in range(9):
        due = await idle.app.runner.run(Scripted(trouble), operation.id)
        assert due is not None
        pauses.append((due - idle.clock.now()) / 1000)
    assert pauses[0] < 1.2
    assert pauses[3] > 3 * pauses[0]
    assert 50 < pauses[8] < 70
    assert (await operation_of(idle, instance_id)).phase == operation.phase


async def test_retry_after_decides_the_pause(idle: World) -> None:
    """The pause is Novita's `Retry-After`."""
    instance_id = await idle.create()
    operation = await operation_of(idle, instance_id)

    async def busy(_claimed: Claimed) -> Step:
        raise RateLimited("slow down", retry_after=20)

    due = await idle.app.runner.run(Scripted(busy), operation.id)
    assert due is not None
    assert 17_000 < due - idle.clock.now() < 23_000


@pytest.mark.parametrize(
    ("errors", "unsure"),
    [
        ([Timeout("no answer", sent=True)], True),
        ([Timeout("no answer", sent=True), RateLimited("slow down")], True),
        ([RateLimited("slow down"), Timeout("no answer", sent=False)], False),
    ],
)
async def test_a_call_that_may_have_worked_is_remembered(
    idle: World, errors: list[UpstreamError], *, unsure: bool
) -> None:
    """A later failure that had certainly no effect does not make an earlier call certain."""
    instance_id = await idle.create()
    operation = await operation_of(idle, instance_id)
    left = iter(errors)

    async def trouble(_claimed: Claimed) -> Step:
        raise next(left)

    for _ in errors:
        await idle.app.runner.run(Scripted(trouble), operation.id)
    assert (await operation_of(idle, instance_id)).progress.call.unsure is unsure


async def test_a_defect_gives_the_lease_back(idle: World) -> None:
    """A step that raises an unexpected error releases its lease."""
    instance_id = await idle.create(replace(REQUEST, name="unlucky"))
    operation = await operation_of(idle, instance_id)

    async def broken(_claimed: Claimed) -> Step:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await idle.app.runner.run(Scripted(broken), operation.id)
    left = await operation_of(idle, instance_id)
    assert left.lease_until is None
    assert left.next_step_at > idle.clock.now()


async def test_a_stop_is_never_lost_on_the_way(idle: World) -> None:
    """A worker that is cancelled while its lease renewal ends stops."""
    instance_id = await idle.create()
    operation = await operation_of(idle, instance_id)
    entered = asyncio.Event()

    async def quick(claimed: Claimed) -> Step:
        entered.set()
        return Again(claimed.operation.phase, idle.clock.now() + 5000)

    for turns in range(30):
        entered.clear()
        task = asyncio.create_task(idle.app.runner.run(Scripted(quick), operation.id))
        await entered.wait()
        for _ in range(turns % 6):
            await asyncio.sleep(0)
        was_over = task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or was_over
        await idle.quiet()


async def test_a_step_that_never_ends_is_ended_at_its_deadline(idle: World) -> None:
    """A step that hangs is cancelled, releases its lease, and is retried."""
    instance_id = await idle.create(replace(REQUEST, name="unending"))
    operation = await operation_of(idle, instance_id)
    cancelled, begun = False, asyncio.Event()

    async def unending(_claimed: Claimed) -> Step:
        nonlocal cancelled
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise
        raise AssertionError

    # A minute of waiting, plus the time of ten calls to Novita.
    deadline = 60 + 10 * idle.settings.upstream_timeout_seconds
    step = asyncio.create_task(idle.app.runner.run(Scripted(unending), operation.id))
    await begun.wait()
    claimed = await operation_of(idle, instance_id)
    await idle.pass_time(deadline - 1, step=2)
    assert not step.done()
    assert (await operation_of(idle, instance_id)).lease_until > claimed.lease_until
    await idle.pass_time(2)
    due = await asyncio.wait_for(step, 10)
    assert cancelled
    assert due is not None
    assert 0 < due - idle.clock.now() < 8_000
    left = await operation_of(idle, instance_id)
    assert (left.lease_until, left.next_step_at, left.phase) == (None, due, operation.phase)


@on_both_stores
async def test_a_confirmation_during_a_step_is_kept(idle: World) -> None:
    """A person confirms a delete while a step of it runs: the step's result does not undo it."""
    instance_id = await idle.create()
    await idle.do(idle.app.operating.ask(OperationKind.DELETE, instance_id, actor=TESTER))
    operation = await operation_of(idle, instance_id)

    async def confirmed_meanwhile(claimed: Claimed) -> Step:
        ask = idle.app.operating.ask(
            OperationKind.DELETE, instance_id, confirmed=True, actor=TESTER
        )
        await idle.do(ask)
        return Again(claimed.operation.phase, idle.clock.now() + 5000)

    await idle.app.runner.run(Scripted(confirmed_meanwhile), operation.id)
    assert (await operation_of(idle, instance_id)).progress.confirmed
