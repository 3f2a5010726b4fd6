# SPDX-License-Identifier: Apache-2.0
"""Time and sleeping. All other code gets a `Clock` passed in, so that tests can use virtual time.

Times are Unix milliseconds (`int`), durations are seconds (`float`).
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Final, Protocol

END_OF_TIME: Final = 253_402_300_800_000
"""The year 10000 in Unix milliseconds: the first time with no ISO-8601 form."""

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
