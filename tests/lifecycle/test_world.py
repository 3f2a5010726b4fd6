# SPDX-License-Identifier: Apache-2.0
"""Virtual time waits for whatever takes real time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.lifecycle.world import World


async def test_time_stands_still_while_a_database_closes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads end in real time; on a busy machine that must not cost the next process hours."""
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
