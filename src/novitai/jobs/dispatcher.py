# SPDX-License-Identifier: Apache-2.0
"""Runs handlers in the order of arrival: one run per key, `concurrency` keys per name at a time.

Everything here runs on the event loop; this module must not depend on a database or a queue.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from novitai.clock import Clock
from novitai.ids import Ids
from novitai.jobs.agenda import Agenda
from novitai.jobs.backoff import Backoff
from novitai.jobs.metrics import JobMetrics
from novitai.jobs.port import JobType
from novitai.jobs.supervision import Loop
from novitai.jobs.waiting import cancel, wait_for, wait_for_all

QUEUE_CAPACITY: Final = 10_000
_LONGEST_NAP_SECONDS: Final = 1.0

_log: Final = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Lane:
    """The waiting and running keys of one job type."""

    job: JobType
    backoff: Backoff
    waiting: dict[str, None] = field(default_factory=dict)
    running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    ended: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    overflowed: bool = False


class Dispatcher:
    """Takes keys, runs their handlers, and runs a key again at the time its handler returned.

    Its memory is bounded: at most `capacity` keys wait per name, each once. Further keys are left
    to the sweep; `on_room` is called when keys were left and none waits any more.
    """

    def __init__(
        self,
        clock: Clock,
        ids: Ids,
        metrics: JobMetrics,
        *,
        capacity: int = QUEUE_CAPACITY,
        on_room: Callable[[], None] | None = None,
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._capacity = capacity
        self._on_room = on_room
        self._lanes: dict[str, _Lane] = {}
        self._agenda = Agenda()
        self._agenda_moved = asyncio.Event()
        self._reminder: asyncio.Task[None] | None = None
        self._open = False

    @property
    def jobs(self) -> list[JobType]:
        """The registered job types."""
        return [lane.job for lane in self._lanes.values()]

    def register(self, job: JobType) -> None:
        """Register a job type.

        Raises:
            ValueError: the name is taken, its concurrency is below 1, or `start` was called.
        """
        if self._open:
            raise ValueError(f"{job.name}: register before the engine starts")
        if job.name in self._lanes:
            raise ValueError(f"{job.name}: registered already")
        if job.concurrency < 1:
            raise ValueError(f"{job.name}: concurrency must be at least 1")
        self._lanes[job.name] = _Lane(job, Backoff(self._ids))
        self._metrics.register(job.name)

    def start(self) -> Loop:
        """Start to take keys; return the task that runs until `stop`."""
        self._open = True
        self._reminder = asyncio.create_task(self._remind(), name="jobs-reminder")
        return self._reminder

    def offer(self, name: str, key: str, *, swept: bool = False) -> None:
        """Run the key's handler as soon as concurrency and back-off allow.

        Args:
            name: The job's name; a name that is not registered is ignored.
            key: The key that the handler gets.
            swept: Whether a sweep found it. A nudge during a run means a change, so the handler
                runs again; a sweep during a run may have seen the row before the run updates it.
        """
        lane = self._lanes.get(name)
        if lane is None or not self._open or key in lane.waiting:
            return
        if key in lane.running:
            if not swept:
                lane.again.add(key)
            return
        pause = lane.backoff.pause(key, self._clock.boottime(), nudged=not swept)
        if pause:
            if not swept:
                self._look_again(name, key, self._clock.now() + math.ceil(pause * 1000))
            return
        if len(lane.running) < lane.job.concurrency:
            self._begin(lane, key)
        elif len(lane.waiting) < self._capacity:
            lane.waiting[key] = None
        else:
            lane.overflowed = True
            return
        self._gauge(lane)

    async def ended(self, name: str, key: str) -> None:
        """Return once the key neither waits nor runs."""
        lane = self._lanes[name]
        if key not in lane.waiting and key not in lane.running:
            return
        ended = lane.ended.get(key)
        if ended is None:
            ended = lane.ended[key] = asyncio.get_running_loop().create_future()
        await asyncio.shield(ended)

    def load(self, name: str) -> int:
        """Count the keys that wait or run."""
        lane = self._lanes[name]
        return len(lane.waiting) + len(lane.running)

    def page(self, name: str, size: int) -> int:
        """Return how many due keys to query, so that up to `size` new ones are among them."""
        lane = self._lanes[name]
        lane.backoff.forget_old(self._clock.boottime())
        return size + self.load(name) + len(lane.backoff)

    def concurrency(self, name: str) -> int:
        """Return how many keys of the name may run at the same time."""
        return self._lanes[name].job.concurrency

    def held(self, name: str) -> frozenset[str]:
        """Return the keys that failed and are backing off."""
        backoff = self._lanes[name].backoff
        backoff.forget_old(self._clock.boottime())
        return backoff.held(self._clock.boottime())

    def left_behind(self, name: str) -> None:
        """Record that more keys are due than were offered, so that `on_room` is called later."""
        lane = self._lanes[name]
        lane.overflowed = bool(lane.waiting or lane.running)

    async def stop(self, grace: float) -> None:
        """Take no more keys, give running handlers `grace` seconds, then cancel and await them."""
        self._open = False
        for lane in self._lanes.values():
            for key in lane.waiting:
                self._settle(lane, key)
            lane.waiting.clear()
            lane.again.clear()
            lane.overflowed = False
            self._gauge(lane)
        self._agenda.clear()
        await cancel(self._reminder)
        await wait_for_all(self._running(), grace, self._clock)
        await cancel(*self._running())

    def _running(self) -> list[asyncio.Task[None]]:
        return [task for lane in self._lanes.values() for task in lane.running.values()]

    def _begin(self, lane: _Lane, key: str) -> None:
        self._agenda.discard((lane.job.name, key))
        name = f"{lane.job.name}:{key}"
        lane.running[key] = asyncio.create_task(self._run(lane, key), name=name)

    async def _run(self, lane: _Lane, key: str) -> None:
        name = lane.job.name
        began = self._clock.monotonic()
        at: int | None = None
        try:
            at = await lane.job.handler(key)
        except asyncio.CancelledError:
            self._metrics.cancelled(name)
            raise
        except Exception:  # any error of a handler; the engine must go on
            self._metrics.failed(name, self._clock.monotonic() - began)
            lane.backoff.failed(key, self._clock.boottime())
            _log.exception("job_failed", job=name, key=key)
        else:
            self._metrics.processed(name, self._clock.monotonic() - began)
            lane.backoff.succeeded(key)
        finally:
            self._end(lane, key, at)

    def _end(self, lane: _Lane, key: str, at: int | None) -> None:
        del lane.running[key]
        self._settle(lane, key)
        while lane.waiting and len(lane.running) < lane.job.concurrency and self._open:
            waited = next(iter(lane.waiting))
            del lane.waiting[waited]
            self._begin(lane, waited)
        if key in lane.again:
            lane.again.discard(key)
            self.offer(lane.job.name, key)
        elif at is not None:
            self._look_again(lane.job.name, key, at)
        if lane.overflowed and not lane.waiting:
            lane.overflowed = False
            if self._on_room is not None:
                self._on_room()
        self._gauge(lane)

    def _look_again(self, name: str, key: str, at: int) -> None:
        if not self._open:
            return
        if at <= self._clock.now():
            self.offer(name, key)
        elif self._agenda.put((name, key), at):
            self._agenda_moved.set()

    async def _remind(self) -> None:
        while True:
            self._agenda_moved.clear()
            while (item := self._agenda.pop(self._clock.now())) is not None:
                self.offer(*item)
            first = self._agenda.first()
            if first is None:
                await self._agenda_moved.wait()
                continue
            # Sleep briefly, so that a forward jump of the wall clock is noticed.
            nap = min(_LONGEST_NAP_SECONDS, max(first - self._clock.now(), 1) / 1000)
            await wait_for(self._agenda_moved, nap, self._clock)

    def _gauge(self, lane: _Lane) -> None:
        self._metrics.level(lane.job.name, queued=len(lane.waiting), running=len(lane.running))

    @staticmethod
    def _settle(lane: _Lane, key: str) -> None:
        ended = lane.ended.pop(key, None)
        if ended is not None and not ended.done():
            ended.set_result(None)
