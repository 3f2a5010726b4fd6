# SPDX-License-Identifier: Apache-2.0
"""Time, handed in. Nothing else in novitai asks the machine what time it is or sleeps.

Points in time are Unix milliseconds (`int`), durations are seconds (`float`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The time of day, a steady clock, and waiting."""

    def now(self) -> int:
        """Return the time of day in Unix milliseconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary origin; never goes backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait until `seconds` have passed on this clock."""
        ...


class SystemClock:
    """The machine's own time."""

    def now(self) -> int:
        """Return the time of day in Unix milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return the machine's monotonic seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for real."""
        await asyncio.sleep(seconds)


class ManualClock:
    """Virtual time: stands still until `advance` moves it, and wakes who slept until then."""

    def __init__(self, start: int = 1_760_000_000_000) -> None:
        self._now_ms = float(start)
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> int:
        """Return the virtual time of day in Unix milliseconds."""
        return int(self._now_ms)

    def monotonic(self) -> float:
        """Return the virtual seconds that have passed since the start."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has moved the clock by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wakened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), wakened))
        await wakened

    async def advance(self, seconds: float) -> None:
        """Move time forward, waking each sleeper at its own time and letting it run a little."""
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


def iso(at: int) -> str:
    """Write Unix milliseconds as ISO-8601 UTC with milliseconds and `Z` (contract of the API)."""
    moment = datetime.fromtimestamp(at // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"


def parse_iso(text: str) -> int:
    """Read an ISO-8601 time with an offset into Unix milliseconds.

    Raises:
        ValueError: not such a time, or one without an offset.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset, such as Z")
    return round(moment.timestamp() * 1000)
