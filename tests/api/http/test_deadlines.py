# SPDX-License-Identifier: Apache-2.0
"""Time limits of requests."""

from __future__ import annotations

import asyncio

import pytest

from novitai.api.http.deadlines import DeadlineExpired, Deadlines


async def wait(deadlines: Deadlines, seconds: float, event: asyncio.Event) -> None:
    """Wait for an event, for a limited time."""
    with deadlines.limit(seconds):
        await event.wait()


async def test_time_is_up() -> None:
    """A block that takes longer is ended with `TimeoutError`, and no other block is."""
    deadlines, go_on = Deadlines(), asyncio.Event()
    longer = asyncio.create_task(wait(deadlines, 60, go_on))
    with pytest.raises(TimeoutError):
        await wait(deadlines, 0.001, asyncio.Event())
    with pytest.raises(TimeoutError):
        await wait(deadlines, 0.001, asyncio.Event())
    assert not longer.done()
    go_on.set()
    await longer


async def test_a_cancellation_by_somebody_else_stays_one() -> None:
    """A task that is cancelled before its time is up ends as cancelled."""
    deadlines = Deadlines()
    task = asyncio.create_task(wait(deadlines, 60, asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_errors_go_through() -> None:
    """An error of the block is raised unchanged, and the limit ends with the block."""
    deadlines = Deadlines()
    with pytest.raises(ValueError, match="x"), deadlines.limit(0.001):
        raise ValueError("x")
    await asyncio.sleep(0.005)


async def test_a_coroutine_that_waits_is_limited() -> None:
    """It ends with its result, its error or, when the time is up, with `DeadlineExpired`."""
    deadlines, go_on = Deadlines(), asyncio.Event()

    async def work(result: int) -> int:
        await go_on.wait()
        await asyncio.sleep(0)
        if result < 0:
            raise ValueError("x")
        return result

    with pytest.raises(DeadlineExpired):
        await deadlines.limited(0.001, work(1))
    first = asyncio.create_task(deadlines.limited(60, work(1)))
    second = asyncio.create_task(deadlines.limited(60, work(-1)))
    await asyncio.sleep(0)
    go_on.set()
    assert await first == 1
    with pytest.raises(ValueError, match="x"):
        await second


async def test_a_cancellation_reaches_the_coroutine() -> None:
    """It can tidy up, and its error goes on."""
    deadlines, told = Deadlines(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            told.append("tidied")

    task = asyncio.create_task(deadlines.limited(60, work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["tidied"]


async def test_what_does_not_wait_is_not_limited() -> None:
    """Its result and its error come at once, even if no time is left."""
    deadlines = Deadlines()

    async def work(fails: bool) -> str:
        if fails:
            raise ValueError("x")
        return "done"

    assert await deadlines.limited(0, work(False)) == "done"
    with pytest.raises(ValueError, match="x"):
        await deadlines.limited(0, work(True))
