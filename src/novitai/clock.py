# SPDX-License-Identifier: Apache-2.0
"""Time, handed in. Nothing else in novitai asks the machine what time it is or sleeps.

Points in time are Unix milliseconds (`int`), durations are seconds (`float`).
"""

from __future__ import annotations

import asyncio
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
