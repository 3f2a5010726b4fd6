# SPDX-License-Identifier: Apache-2.0
"""What tests put in place of the machine. Nothing of the server imports this."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from novitai.domain.instance import BillingMode, Instance, InstanceStatus

REST_AFTER: Final = 20.0
"""Virtual seconds that may pass in one `advance` before it waits for the threads to end."""
_AT: Final = 1_760_000_000_000


def an_instance(status: InstanceStatus = InstanceStatus.RUNNING, **more: Any) -> Instance:
    """Return an instance that was bought; `more` sets any of its fields."""
    made = Instance(
        id="inst_1760000000_abc123def456",
        name="my-instance",
        status=status,
        product_name="gpu-basic",
        template_id="tmpl-12345",
        gpu_num=2,
        rootfs_size=80,
        region="US-WEST-01",
        billing_mode=BillingMode.ON_DEMAND,
        created_at=_AT,
        updated_at=_AT,
        upstream_id="up-1",
    )
    return replace(made, **more)


async def calm(most: int) -> None:
    """Let the event loop turn until it has nothing to run, at most `most` times.

    It turns twice at least, for what a thread or a socket brings in meanwhile.
    """
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]  # noqa: SLF001 - it alone says that nothing is to run
    for turn in range(most):
        await asyncio.sleep(0)
        if turn and not ready:
            break


class ManualClock:
    """Virtual time: it stands still until `advance` moves it and wakes sleepers that are due.

    Attributes:
        rest: Waits until no thread works for a sleeper. It is called after `REST_AFTER` seconds of
            one `advance`, so that what takes a moment of real time does not seem to take minutes.
    """

    rest: Callable[[], Awaitable[None]] | None = None

    def __init__(self, start: int = _AT) -> None:
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
        rested = self._monotonic
        target = rested + seconds
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, wakened = heapq.heappop(self._sleepers)
            self._move_to(max(due, self._monotonic))
            if not wakened.done():
                wakened.set_result(None)
                await calm(20)
                if self.rest is not None and self._monotonic - rested >= REST_AFTER:
                    await self.rest()
                    rested = self._monotonic
        self._move_to(target)
        await calm(20)

    def _move_to(self, monotonic: float) -> None:
        self._now_ms += (monotonic - self._monotonic) * 1000
        self._monotonic = monotonic
