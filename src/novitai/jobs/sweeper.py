# SPDX-License-Identifier: Apache-2.0
"""The sweep: the loop that finds due rows, even if their nudges were lost."""

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

# The shortest pause between two sweeps, as a share of the interval.
_SHORTEST_PAUSE: Final = 0.05

_log: Final = structlog.get_logger(__name__)


class Sweeper:
    """Sweeps all job types once per interval, or earlier after `soon`; errors do not end it."""

    def __init__(
        self,
        clock: Clock,
        ids: Ids,
        sweep: Callable[[Sequence[JobType]], Awaitable[None]],
        *,
        interval: float,
        spread: float = 0.0,
    ) -> None:
        """Prepare the loop.

        Args:
            clock: The clock of the pauses.
            ids: The source of jitter.
            sweep: Finds the due rows of these job types.
            interval: Seconds between two sweeps.
            spread: The fraction by which the interval varies, so that processes do not sweep at
                the same time.
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
        """When all job types were last swept without error, or the start, in Unix milliseconds."""

    def start(self, jobs: Sequence[JobType]) -> Loop:
        """Start with an immediate sweep; return the task that runs until `stop`."""
        self.last_complete = self._clock.now()
        self._task = asyncio.create_task(self._run(jobs), name="jobs-sweep")
        return self._task

    def soon(self) -> None:
        """Sweep before the interval ends, because there is room for more keys."""
        self._soon.set()

    async def stop(self) -> None:
        """Cancel the loop and wait for its end."""
        await cancel(self._task)

    async def _run(self, jobs: Sequence[JobType]) -> None:
        while True:
            self._soon.clear()
            if await self._all(jobs):
                self.last_complete = self._clock.now()
            pause = self._interval * _SHORTEST_PAUSE
            await self._clock.sleep(pause)
            rest = self._ids.jitter(self._interval, self._spread) - pause
            await wait_for(self._soon, rest, self._clock)

    async def _all(self, jobs: Sequence[JobType]) -> bool:
        """Sweep all at once; if that fails, one by one, so that one does not hold up the others."""
        try:
            await self._sweep(jobs)
        except Exception:  # any error of a query; `_try` tells it
            return all([await self._try(job) for job in jobs])
        for job in jobs:
            self._recover(job)
        return True

    async def _try(self, job: JobType) -> bool:
        try:
            await self._sweep([job])
        except Exception:  # any error of a query; the next sweep retries
            if job.name not in self._failing:
                self._failing.add(job.name)
                _log.exception("sweep_failed", job=job.name)
            return False
        self._recover(job)
        return True

    def _recover(self, job: JobType) -> None:
        if job.name in self._failing:
            self._failing.discard(job.name)
            _log.info("sweep_recovered", job=job.name)
