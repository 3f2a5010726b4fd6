# SPDX-License-Identifier: Apache-2.0
"""Time and sleeping. All other code gets a `Clock` passed in, so that tests can use virtual time.

Times are Unix milliseconds (`int`), durations are seconds (`float`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime
from typing import Final, Protocol

# Linux has a separate clock that counts suspension; on other systems the monotonic clock does.
_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """The time of day, two monotonic clocks, and sleeping."""

    def now(self) -> int:
        """Return the time of day in Unix milliseconds."""
        ...

    def monotonic(self) -> float:
        """Return the seconds since an arbitrary start; never goes backwards."""
        ...

    def boottime(self) -> float:
        """Return monotonic seconds, including the time while the machine is suspended."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait until `seconds` have passed on this clock."""
        ...


class SystemClock:
    """The machine's clock.

    Attributes:
        offset: Milliseconds added to the time of day: how far the database's clock is ahead.
    """

    offset = 0

    def now(self) -> int:
        """Return the time of day in Unix milliseconds."""
        return time.time_ns() // 1_000_000 + self.offset

    def boottime(self) -> float:
        """Return the seconds since boot, including suspension if the system counts it."""
        return time.clock_gettime(_BOOTTIME)

    def monotonic(self) -> float:
        """Return the seconds of the machine's monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of real time."""
        await asyncio.sleep(seconds)


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


def iso(at: int) -> str:
    """Format Unix milliseconds as ISO-8601 in UTC, with milliseconds and `Z`, as in the API."""
    moment = datetime.fromtimestamp(at // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"


def parse_iso(text: str) -> int:
    """Parse an ISO-8601 time with an offset to Unix milliseconds.

    Raises:
        ValueError: the text is not an ISO-8601 time, or it has no offset.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset, such as Z")
    return round(moment.timestamp() * 1000)
