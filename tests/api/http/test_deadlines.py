# SPDX-License-Identifier: Apache-2.0
"""Time limits of requests."""

from __future__ import annotations

import asyncio

import pytest

from novitai.api.http.deadlines import Deadlines


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
