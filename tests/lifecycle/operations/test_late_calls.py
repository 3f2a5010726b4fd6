# SPDX-License-Identifier: Apache-2.0
"""A worker that stalls past its claim sends no call; the effect of a late call is corrected."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import pytest

from novitai.app import Application, Outside
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.store.queries import events
from novitai.testing import ManualClock
from novitai.upstream.errors import NotSent
from novitai.upstream.operations import Endpoint
from tests.domain.making import TESTER
from tests.lifecycle.stalling import Stall
from tests.lifecycle.world import World, at_home

RUNNING, STOPPED = InstanceStatus.RUNNING, InstanceStatus.STOPPED
TERMINATED = InstanceStatus.TERMINATED
START, STOP = OperationKind.START, OperationKind.STOP
RESTART, DELETE = OperationKind.RESTART, OperationKind.DELETE
CALLS = {
    START: Endpoint.START,
    STOP: Endpoint.STOP,
    RESTART: Endpoint.RESTART,
    DELETE: Endpoint.DELETE,
}
BEFORE = {START: STOPPED, STOP: RUNNING, RESTART: RUNNING, DELETE: RUNNING}
AFTER = {START: RUNNING, STOP: STOPPED, RESTART: RUNNING, DELETE: TERMINATED}
two_processes = pytest.mark.parametrize(
    "store", [pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True
)


@pytest.fixture
async def other(world: World) -> AsyncIterator[Application]:
    """A second process on the same store."""
    transport = httpx2.ASGITransport(app=world.emulator.app, raise_app_exceptions=False)
    app = await Application.open(
        world.settings,
        world.clock,
        Ids(random.Random(99)),
        outside=Outside(upstream=transport, probes=transport, resolve=at_home),
        engine=lambda _settings, database, clock, ids: EmbeddedEngine(database, clock, ids),
    )
    world.at_work.watch(app.database)
    await app.start(work=True)
    yield app
    ending = asyncio.create_task(app.stop())
    while not ending.done():
        await world.pass_time(1)
    await ending


MakeStall = Callable[..., Stall]


@pytest.fixture
def make_stall(world: World) -> Iterator[MakeStall]:
    """Make a process stall; it continues at the latest when the test ends."""
    made: list[Stall] = []

    def make(kind: OperationKind, *, slips: bool = False) -> Stall:
        made.append(Stall(world.app, CALLS[kind], slips=slips))
        return made[-1]

    yield make
    for stall in made:
        stall.go_on()


async def ask(app: Application, kind: OperationKind, instance_id: str) -> None:
    """Request a verb in a process."""
    await app.commands.apply(app.operating.ask(kind, instance_id, actor=TESTER))


async def status_in(app: Application, instance_id: str) -> str:
    """Return an instance's status, as a process sees it."""
    return str((await app.instances.get(instance_id)).view["status"])


async def until_status(
    world: World, app: Application, instance_id: str, status: InstanceStatus
) -> None:
    """Let time pass until an instance has a status."""

    async def reached() -> bool:
        return await status_in(app, instance_id) == status.value

    await world.until(reached, within=600)


async def stands(world: World, kind: OperationKind) -> str:
    """Create an instance in the status that a verb needs."""
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=600)
    if BEFORE[kind] is STOPPED:
        await ask(world.app, STOP, instance_id)
        await world.until_status(instance_id, STOPPED, within=300)
    # The next call must not rely on a listing that began before the last call.
    await world.pass_time(10)
    return instance_id


async def calls_of(world: World, kind: OperationKind) -> int:
    """Count the upstream calls of a verb."""
    counts: dict[str, int] = (await world.emulator.call("GET", "counts"))["counts"]
    return counts.get(f"POST /gpu/instance/{CALLS[kind].label}", 0)


async def late_drifts(app: Application, instance_id: str) -> list[dict[str, Any]]:
    """List the drift events of late calls."""
    log = await app.database.read(lambda c: events.of_instance(c, instance_id))
    drifts: list[dict[str, Any]] = [
        dict(event.data) for event in log if event.type.value == "instance.drift"
    ]
    return [data for data in drifts if dict(data["drift"]).get("cause") == "late_call"]


async def held_up(
    world: World, make_stall: MakeStall, kind: OperationKind, *, slips: bool = False
) -> tuple[str, Stall, int]:
    """Request a verb and wait until its call is held back; return the calls before it."""
    instance_id = await stands(world, kind)
    before = await calls_of(world, kind)
    stall = make_stall(kind, slips=slips)
    await ask(world.app, kind, instance_id)
    await world.quiet()  # before any time passes, only this process can claim it
    for _ in range(60):
        if stall.began.is_set():
            assert await calls_of(world, kind) == before
            return instance_id, stall, before
        await world.pass_time(1)
    raise AssertionError("the call was never made")


async def finished_by(
    world: World, other: Application, kind: OperationKind, instance_id: str
) -> None:
    """Let the claim expire, and let another process finish the verb."""
    await world.pass_time(20)
    await until_status(world, other, instance_id, AFTER[kind])


async def is_sent_once_after_a_look(
    world: World, stall: Stall, kind: OperationKind, instance_id: str, before: int
) -> None:
    """Release the stalled call: it is not sent; after a listing the verb is carried out."""
    stall.go_on()
    await world.quiet()
    assert isinstance(stall.error, NotSent)
    assert await calls_of(world, kind) == before
    await world.until_status(instance_id, AFTER[kind], within=900)
    assert await calls_of(world, kind) == before + 1


@two_processes
@pytest.mark.parametrize("kind", [START, STOP, RESTART, DELETE])
async def test_a_worker_that_stalls_past_its_claim_sends_nothing(
    world: World, other: Application, make_stall: MakeStall, kind: OperationKind
) -> None:
    """A call is not sent after another process has finished the verb."""
    instance_id, stall, before = await held_up(world, make_stall, kind)
    await finished_by(world, other, kind, instance_id)
    opposite = {START: STOP, STOP: START}.get(kind)
    if opposite is not None:
        await ask(other, opposite, instance_id)
        await until_status(world, other, instance_id, AFTER[opposite])
    sent = await calls_of(world, kind)
    stall.go_on()
    await world.pass_time(120)
    assert isinstance(stall.error, NotSent)
    assert await calls_of(world, kind) == sent == before + 1
    assert await status_in(other, instance_id) == AFTER[opposite or kind].value
    assert not await late_drifts(other, instance_id)


def _jump(clock: ManualClock) -> None:
    clock.jump(20)


def _suspend(clock: ManualClock) -> None:
    clock.suspend(20)


@pytest.mark.parametrize("kind", [START, STOP, RESTART, DELETE])
@pytest.mark.parametrize("away", [_jump, _suspend])
async def test_a_call_is_judged_by_the_later_of_two_clocks(
    world: World,
    clock: ManualClock,
    make_stall: MakeStall,
    kind: OperationKind,
    away: Callable[[ManualClock], None],
) -> None:
    """If the wall clock has passed the lease, the call is not sent."""
    instance_id, stall, before = await held_up(world, make_stall, kind)
    away(clock)
    await is_sent_once_after_a_look(world, stall, kind, instance_id, before)


@pytest.mark.parametrize("kind", [START, STOP, RESTART, DELETE])
async def test_a_clock_set_back_opens_no_window_again(
    world: World, clock: ManualClock, make_stall: MakeStall, kind: OperationKind
) -> None:
    """If the monotonic clock has passed the lease, the call is not sent."""
    instance_id, stall, before = await held_up(world, make_stall, kind)
    clock.jump(-60)
    await world.pass_time(20)
    await is_sent_once_after_a_look(world, stall, kind, instance_id, before)


@two_processes
@pytest.mark.parametrize(("kind", "opposite"), [(START, STOP), (STOP, START)])
async def test_what_slips_through_is_put_right_once_and_told(
    world: World,
    other: Application,
    make_stall: MakeStall,
    kind: OperationKind,
    opposite: OperationKind,
) -> None:
    """A late call that undoes the user's last verb is corrected once, with an event."""
    instance_id, stall, _ = await held_up(world, make_stall, kind, slips=True)
    await finished_by(world, other, kind, instance_id)
    await ask(other, opposite, instance_id)
    await until_status(world, other, instance_id, AFTER[opposite])
    await world.pass_time(60)
    late = await calls_of(world, kind)
    stall.go_on()
    await world.pass_time(30)
    assert await calls_of(world, kind) == late + 1
    await world.until(lambda: _is_told(other, instance_id), within=300)
    await until_status(world, other, instance_id, AFTER[opposite])
    await world.pass_time(600, step=5)
    assert await calls_of(world, kind) == late + 1
    [told] = await late_drifts(other, instance_id)
    assert told["correction"] == opposite.value
    assert await status_in(other, instance_id) == AFTER[opposite].value
    [row] = await world.emulator.ever()
    assert row["status"] == {START: "running", STOP: "exited"}[opposite]


async def _is_told(app: Application, instance_id: str) -> bool:
    return bool(await late_drifts(app, instance_id))


@two_processes
@pytest.mark.parametrize("kind", [RESTART, DELETE])
async def test_what_slips_through_and_changes_nothing_is_let_be(
    world: World, other: Application, make_stall: MakeStall, kind: OperationKind
) -> None:
    """Late restarts and late calls to deleted instances need no correction."""
    instance_id, stall, _ = await held_up(world, make_stall, kind, slips=True)
    await finished_by(world, other, kind, instance_id)
    await world.pass_time(60)
    stall.go_on()
    await world.pass_time(300, step=5)
    assert stall.ended.is_set()
    await until_status(world, other, instance_id, AFTER[kind])
    assert not await late_drifts(other, instance_id)
