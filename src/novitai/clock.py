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
from typing import Final, Protocol

# Linux counts suspension in a clock of its own; other systems count it in the monotonic one.
_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """The time of day, two steady clocks, and waiting."""

    def now(self) -> int:
        """Return the time of day in Unix milliseconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary origin; never goes backwards."""
        ...

    def boottime(self) -> float:
        """Return steady seconds that also count while the machine is suspended."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait until `seconds` have passed on this clock."""
        ...


class SystemClock:
    """The machine's own time.

    Attributes:
        offset: Milliseconds that are added to the time of day: what the database's clock is ahead.
    """

    offset = 0

    def now(self) -> int:
        """Return the time of day in Unix milliseconds."""
        return time.time_ns() // 1_000_000 + self.offset

    def boottime(self) -> float:
        """Return the seconds since boot, suspension included, where the system counts them."""
        return time.clock_gettime(_BOOTTIME)

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
        self._suspended = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> int:
        """Return the virtual time of day in Unix milliseconds."""
        return int(self._now_ms)

    def monotonic(self) -> float:
        """Return the virtual seconds that have passed since the start."""
        return self._monotonic

    def boottime(self) -> float:
        """Return the virtual seconds since the start, suspension included."""
        return self._monotonic + self._suspended

    def jump(self, seconds: float) -> None:
        """Set the time of day forward or back, as a person does; nothing else moves."""
        self._now_ms += seconds * 1000

    def suspend(self, seconds: float) -> None:
        """Let time pass as it does for a suspended machine: no sleeper wakes, nothing runs."""
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
