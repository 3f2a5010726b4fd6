# SPDX-License-Identifier: Apache-2.0
"""What tests put in place of the machine. Nothing of the server imports this."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class ManualClock:
    """Virtual time: it stands still until `advance` moves it and wakes sleepers that are due."""

    def __init__(self, start: int = 1_760_000_000_000) -> None:
        self._now_ms = float(start)
        self._monotonic = 0.0
        self._suspended = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> int:
        """Return the virtual time of day in Unix milliseconds."""
        return int(self._now_ms)

    def monotonic(self) -> float:
        """Return the virtual seconds since the start, without suspension."""
        return self._monotonic

    def boottime(self) -> float:
        """Return the virtual seconds since the start, including suspension."""
        return self._monotonic + self._suspended

    def jump(self, seconds: float) -> None:
        """Set the time of day forward or back, as an administrator does; nothing else changes."""
        self._now_ms += seconds * 1000

    def suspend(self, seconds: float) -> None:
        """Let time pass as on a suspended machine: no sleeper wakes."""
        self._now_ms += seconds * 1000
        self._suspended += seconds

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has moved the clock by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wakened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), wakened))
        await wakened

    async def advance(self, seconds: float) -> None:
        """Move time forward; wake each sleeper when it is due and let it run a few loop turns."""
        target = self._monotonic + seconds
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, wakened = heapq.heappop(self._sleepers)
            self._move_to(max(due, self._monotonic))
            if not wakened.done():
                wakened.set_result(None)
                await self._settle()
        self._move_to(target)
        await self._settle()

    def _move_to(self, monotonic: float) -> None:
        self._now_ms += (monotonic - self._monotonic) * 1000
        self._monotonic = monotonic

    @staticmethod
    async def _settle() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
