# SPDX-License-Identifier: Apache-2.0
"""The loop that looks for due rows, whatever became of the nudges."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from novitai.clock import Clock
from novitai.ids import Ids
from novitai.jobs.port import JobType
from novitai.jobs.supervision import Loop
from novitai.jobs.waiting import cancel, wait_for

# However much is due, sweeps keep this distance, as a share of the interval.
_SHORTEST_PAUSE: Final = 0.05

_log: Final = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps every job type once an interval, and sooner when asked; errors do not end it."""

    def __init__(
        self,
        clock: Clock,
        ids: Ids,
        sweep: Callable[[JobType], Awaitable[None]],
        *,
        interval: float,
        spread: float = 0.0,
    ) -> None:
        """Prepare the loop.

        Args:
            clock: The time it runs on.
            ids: Where the spread comes from.
            sweep: Looks for the due rows of one job type.
            interval: Seconds between two sweeps.
            spread: The fraction by which the interval varies, so that processes drift apart.
        """
        self._clock = clock
        self._ids = ids
        self._sweep = sweep
        self._interval = interval
        self._spread = spread
        self._soon = asyncio.Event()
        self._failing: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self.last_complete = clock.now()
        """When a sweep of everything last went well, in Unix milliseconds; else the start."""

    def start(self, jobs: Sequence[JobType]) -> Loop:
        """Begin; the first sweep is at once; return its loop."""
        self.last_complete = self._clock.now()
        self._task = asyncio.create_task(self._run(jobs), name="jobs-sweep")
        return self._task

    def soon(self) -> None:
        """Do not wait out the interval: there is room for more."""
        self._soon.set()

    async def stop(self) -> None:
        """End the loop and wait for its end."""
        await cancel(self._task)

    async def _run(self, jobs: Sequence[JobType]) -> None:
        while True:
            self._soon.clear()
            if all([await self._try(job) for job in jobs]):
                self.last_complete = self._clock.now()
            pause = self._interval * _SHORTEST_PAUSE
            await self._clock.sleep(pause)
            rest = self._ids.jitter(self._interval, self._spread) - pause
            await wait_for(self._soon, rest, self._clock)

    async def _try(self, job: JobType) -> bool:
        try:
            await self._sweep(job)
        except Exception:  # whatever a query raises, the next sweep tries again
            if job.name not in self._failing:
                self._failing.add(job.name)
                _log.exception("sweep_failed", job=job.name)
            return False
        if job.name in self._failing:
            self._failing.discard(job.name)
            _log.info("sweep_recovered", job=job.name)
        return True
