# SPDX-License-Identifier: Apache-2.0
"""Watch the clock: detect jumps of the wall clock and correct the stored times.

The wall clock is compared with the monotonic clock once a second. After a jump the account is
listed before any decision. After a backward jump, stored times that now lie in the future would
block their rows, so they are pulled back. On PostgreSQL the database's clock is authoritative.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from novitai.clock import Clock, SystemClock
from novitai.jobs.supervision import Loop
from novitai.jobs.waiting import cancel
from novitai.lifecycle.maintenance import clock_check
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreError
from novitai.store.queries import future_times

PAUSE: Final = 1.0
JUMP: Final = 2_000
"""Milliseconds of difference between wall clock and monotonic clock that count as a jump."""
_COMPARE_EVERY: Final = 60
"""The number of checks between two comparisons with the database's clock."""
_WORTH_AN_OFFSET: Final = 100
_AGAIN_AFTER: Final = (2.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds after the clock went back at which stored times are corrected again.

A step or a listing that began before writes the times of its beginning when it ends.
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WentBack:
    """A backward clock jump, detected at `at` (Unix milliseconds), by `seconds` if known."""

    at: int
    seconds: float | None


class ClockWatch:
    """Detects clock jumps and corrects the stored times."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        placement_deadline: float,
        jumped: Callable[[], None],
    ) -> None:
        """Set the dependencies.

        Args:
            database: Stores the times to correct.
            clock: The clock to watch.
            placement_deadline: Seconds within which an instance must be bought.
            jumped: Called after a jump in either direction.
        """
        self._database = database
        self._clock = clock
        self._placement_deadline = int(placement_deadline * 1000)
        self._jumped = jumped
        self._task: asyncio.Task[None] | None = None
        self._lead = self._measure()
        self._looking = asyncio.Lock()
        self._again_at: list[float] = []
        self.went_back: WentBack | None = None

    async def begin(self) -> None:
        """Pull back stored times in the future. Call this before anything else reads a time.

        Raises:
            StoreError: the database cannot be used.
        """
        await self._follow_database()
        await self._pull_back(None)

    def start(self) -> Loop:
        """Start watching; return the loop."""
        self._lead = self._measure()
        self._task = asyncio.create_task(self._run(), name="clock-watch")
        return self._task

    async def stop(self) -> None:
        """Stop."""
        await cancel(self._task)

    async def look(self) -> None:
        """Compare the wall clock with the monotonic clock once.

        When it returns, the stored times fit the clock, also if another task found the jump.
        """
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        lead = self._measure()
        moved = lead - self._lead
        if abs(moved) <= JUMP:
            return
        _log.warning("clock_jumped", seconds=round(moved / 1000, 3))
        await self._follow_database()
        self._lead = self._measure()
        if moved < 0:
            self._again_at = [self._clock.boottime() + after for after in _AGAIN_AFTER]
            await self._pull_back(-moved / 1000)
        else:
            pass_over = partial(future_times.pass_over, seconds=moved / 1000, now=self._clock.now())
            await self._database.write(pass_over)
        self._jumped()

    async def _run(self) -> None:
        looks = 0
        while True:
            await self._clock.sleep(PAUSE)
            looks += 1
            try:
                await self.look()
                if self._again_at and self._clock.boottime() >= self._again_at[0]:
                    await self._pull_back(None)
                    del self._again_at[0]
                if looks % _COMPARE_EVERY == 0:
                    await self._follow_database()
            except StoreError as error:
                _log.warning("database_in_trouble", error=str(error))
            except Exception:  # a defect must not end the watch
                _log.exception("clock_watch_failed")

    async def _pull_back(self, seconds: float | None) -> None:
        now = self._clock.now()
        if seconds is not None:
            moved = -int(seconds * 1000)
            await self._database.write(partial(future_times.shift_runs, moved=moved, now=now))
        pull = partial(future_times.pull_back, now=now, placement_deadline=self._placement_deadline)
        changed = await self._database.write(pull)
        if seconds is not None or (changed and self.went_back is None):
            self.went_back = WentBack(now, seconds)
        if changed or seconds is not None:
            _log.warning("clock_went_back", seconds=seconds, rows=changed)

    async def _follow_database(self) -> None:
        """Adjust our clock to the database's, if it has one."""
        if not isinstance(self._clock, SystemClock):
            return
        ahead = await clock_check.skew(self._database, self._clock)
        if abs(ahead) >= _WORTH_AN_OFFSET:
            self._clock.offset -= ahead
            self._lead -= ahead

    def _measure(self) -> float:
        """Return how many milliseconds the wall clock is ahead of the monotonic clock."""
        return self._clock.now() - self._clock.boottime() * 1000
