# SPDX-License-Identifier: Apache-2.0
"""Once a minute, do what no change of an instance leads to.

The stop lead changes with each stop, so the stored plan of an instance may be outdated although
nothing about the instance has changed. A budget is spent by time alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from novitai.clock import Clock
from novitai.jobs.supervision import Loop
from novitai.jobs.waiting import cancel
from novitai.store.engine.errors import StoreError

PAUSE: Final = 60.0

_log = structlog.get_logger(__name__)


class LimitSweep:
    """Runs sweeps once a minute, one after the other."""

    def __init__(self, sweeps: Sequence[Callable[[], Awaitable[None]]], clock: Clock) -> None:
        self._sweeps = sweeps
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Loop:
        """Start; return the loop."""
        self._task = asyncio.create_task(self._run(), name="limit-sweep")
        return self._task

    async def stop(self) -> None:
        """Stop."""
        await cancel(self._task)

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(PAUSE)
            for sweep in self._sweeps:
                await _run_one(sweep)


async def _run_one(sweep: Callable[[], Awaitable[None]]) -> None:
    try:
        await sweep()
    except StoreError as error:
        _log.warning("database_in_trouble", error=str(error))
    except Exception:  # a defect must not end the backstop
        _log.exception("limit_sweep_failed")
