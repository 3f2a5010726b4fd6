# SPDX-License-Identifier: Apache-2.0
"""Virtual time waits for work that takes real time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.lifecycle.world import World


async def test_time_stands_still_while_a_database_closes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Virtual time does not advance while database threads end, even on a busy machine."""
    loop, begun, go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    release = world.app.database._release

    def slow() -> None:
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(60)
        release()

    async def watch() -> float:
        await begun.wait()
        before = world.clock.monotonic()
        for _ in range(1000):
            await asyncio.sleep(0)
        passed = world.clock.monotonic() - before
        go.set()
        return passed

    monkeypatch.setattr(world.app.database, "_release", slow)
    watching = asyncio.create_task(watch())
    await world.end()
    assert await watching <= 1
    await world.open()
