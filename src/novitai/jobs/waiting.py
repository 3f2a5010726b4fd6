# SPDX-License-Identifier: Apache-2.0
"""Waiting for an event, tasks or a block, with a timeout on the injected clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any

from novitai.clock import Clock


async def wait_for(event: asyncio.Event, seconds: float, clock: Clock) -> bool:
    """Wait for `event` for at most `seconds`; return whether it is set."""
    if event.is_set():
        return True
    await _first(clock, seconds, event.wait())
    return event.is_set()


async def wait_for_all(tasks: Iterable[asyncio.Task[None]], seconds: float, clock: Clock) -> None:
    """Wait until all tasks are done, for at most `seconds`; cancels none of them."""
    tasks = list(tasks)
    if tasks and seconds > 0:
        await _first(clock, seconds, _all_done(tasks))


async def cancel(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel the tasks and wait until they have ended; their exceptions are dropped."""
    ending = [task for task in tasks if task is not None]
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


@contextlib.asynccontextmanager
async def keeping(
    work: Coroutine[Any, Any, None], *, name: str | None = None
) -> AsyncIterator[None]:
    """Run `work` during a block, such as renewing a lease; its exceptions are dropped."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        await cancel(task)


@contextlib.asynccontextmanager
async def within(seconds: float, clock: Clock) -> AsyncIterator[None]:
    """Cancel the block after `seconds` on the injected clock.

    Raises:
        TimeoutError: the time ran out and the block was cancelled.
    """
    loop = asyncio.get_running_loop()

    async def expire() -> None:
        await clock.sleep(seconds)
        scope.reschedule(loop.time())

    async with asyncio.timeout(None) as scope, keeping(expire()):
        yield


async def _all_done(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _first(clock: Clock, seconds: float, happening: Coroutine[None, None, object]) -> None:
    contenders = {asyncio.ensure_future(happening), asyncio.ensure_future(clock.sleep(seconds))}
    try:
        await asyncio.wait(contenders, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for contender in contenders:
            contender.cancel()
        await asyncio.gather(*contenders, return_exceptions=True)
