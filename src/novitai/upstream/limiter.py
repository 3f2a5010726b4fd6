# SPDX-License-Identifier: Apache-2.0
"""The rate limiter of calls to upstream: writes go first, and a 429 pauses all calls.

It is a token bucket in GCRA form. With N calls a minute the burst is N / 5 (at least one), and a
token is added every 60 / (N - burst + 1) seconds: the fastest rate at which no period of 60 s has
more than N calls, including the burst.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Final

from novitai.clock import Clock
from novitai.ids import Ids

_MINUTE: Final = 60.0
_BURST_SHARE: Final = 5
# While reads wait, at least one permit in this many goes to a read.
READ_SHARE: Final = 5
# Maximum seconds of a pause, even if upstream asks for a longer one.
MAX_PAUSE: Final = 300.0
_FIRST_BACKOFF: Final = 1.0
_MAX_BACKOFF: Final = 60.0


class Priority(IntEnum):
    """The order in which waiting calls get permits."""

    ENDING = 0
    """Deletes and stops: they end spending."""
    WRITING = 1
    """Creates, starts, restarts, migrations."""
    READING = 2
    """All other calls that the work needs."""
    SHOWING = 3
    """Figures that are only shown."""


class UpstreamLimiter:
    """Grants permits to call upstream. It stores one entry per waiting caller."""

    def __init__(self, calls_per_minute: int, *, clock: Clock, ids: Ids) -> None:
        """Set the rate.

        Args:
            calls_per_minute: Maximum calls in any period of 60 s; at least 1.
            clock: Time and sleeping.
            ids: The source of jitter.

        Raises:
            ValueError: `calls_per_minute` is less than 1.
        """
        if calls_per_minute < 1:
            raise ValueError("calls_per_minute must be at least 1")
        self.burst = max(1, calls_per_minute // _BURST_SHARE)
        self._interval = _MINUTE / (calls_per_minute - self.burst + 1)
        self._clock = clock
        self._ids = ids
        # When the bucket will be full; permits are granted up to `burst - 1` intervals before.
        self._full_at = clock.monotonic()
        self._paused_until = clock.monotonic()
        self._refusals = 0
        self._others_in_a_row = 0
        self._queues: dict[Priority, dict[asyncio.Future[None], None]] = {
            priority: {} for priority in Priority
        }
        self._pump: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """The number of callers that wait for a permit."""
        return sum(len(queue) for queue in self._queues.values())

    @property
    def paused_for(self) -> float:
        """Seconds until the pause after a 429 ends; 0 if there is no pause."""
        return max(0.0, self._paused_until - self._clock.monotonic())

    async def acquire(self, priority: Priority) -> None:
        """Wait for a permit. If the caller is cancelled while waiting, no permit is lost."""
        if not self.waiting and self._delay() <= 0:
            self._take(priority)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues[priority][turn] = None
        self._keep_pumping()
        try:
            await turn
        except asyncio.CancelledError:
            self._queues[priority].pop(turn, None)
            if turn.done() and not turn.cancelled():
                self.give_back()
            elif not self.waiting:
                self._stop_pumping()
            raise

    def give_back(self) -> None:
        """Return a permit that was not used for a call."""
        self._full_at -= self._interval
        if self.waiting:
            # The task may be sleeping longer than is now needed.
            self._stop_pumping()
            self._keep_pumping()

    def pause(self, retry_after: float | None) -> None:
        """Grant no permits for a while after a 429.

        Args:
            retry_after: The seconds that upstream asked for, at most 300. Without it the pause
                doubles with each refusal, up to 60 s. Jitter of up to 20% is added, so that
                several processes do not resume at the same time.
        """
        # A 429 during a pause answers a call sent before the pause, so it is not counted again.
        is_first = not self.paused_for
        if retry_after is None:
            if not is_first:
                return
            retry_after = min(_MAX_BACKOFF, _FIRST_BACKOFF * 2 ** min(self._refusals, 10))
        if is_first:
            self._refusals += 1
        # ids.jitter is symmetric: the result is between 1 and 1.2 times the pause.
        length = self._ids.jitter(min(retry_after, MAX_PAUSE) * 1.1, 1 / 11)
        self._paused_until = max(self._paused_until, self._clock.monotonic() + length)
        # The bucket is empty at the end of the pause, so that waiting calls do not go all at once.
        empty = self._paused_until + (self.burst - 1) * self._interval
        self._full_at = max(self._full_at, empty)

    def answered(self) -> None:
        """Record a success outside a pause: the next refusal begins with a short pause."""
        if not self.paused_for:
            self._refusals = 0

    def _delay(self) -> float:
        now = self._clock.monotonic()
        earliest = self._full_at - (self.burst - 1) * self._interval
        return max(earliest, self._paused_until) - now

    def _take(self, priority: Priority) -> None:
        self._full_at = max(self._full_at, self._clock.monotonic()) + self._interval
        self._others_in_a_row = 0 if priority is Priority.READING else self._others_in_a_row + 1

    def _keep_pumping(self) -> None:
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._serve(), name="upstream-limiter")

    def _stop_pumping(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None

    async def _serve(self) -> None:
        while self.waiting:
            delay = self._delay()
            if delay > 0:
                await self._clock.sleep(delay)
                continue
            priority = self._next_priority()
            queue = self._queues[priority]
            turn = next(iter(queue))
            del queue[turn]
            if not turn.done():
                self._take(priority)
                turn.set_result(None)

    def _next_priority(self) -> Priority:
        if self._queues[Priority.READING] and self._others_in_a_row >= READ_SHARE - 1:
            return Priority.READING
        return next(priority for priority in Priority if self._queues[priority])
