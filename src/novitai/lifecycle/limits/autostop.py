# SPDX-License-Identifier: Apache-2.0
"""Ask Novita how busy the GPUs of instances with auto-stop are, when a row says that this is due.

The pause is stored before the call, so that no crash and no second worker makes it shorter. The
call waits behind all others. The result is stored with the record and reviewed in one transaction;
whether the instance is stopped is decided there (`domain/autostop.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sqlalchemy import Connection

from novitai.domain.autostop import GpuUse, after_sample, highest_use
from novitai.jobs.waiting import within
from novitai.lifecycle.core import Core
from novitai.lifecycle.limits.reviews import LimitReviews
from novitai.lifecycle.queries.utilization import UtilizationSource
from novitai.store.queries import autostop, instances
from novitai.upstream.errors import UpstreamError

JOB: Final = "sample_utilization"
CONCURRENCY: Final = 2
_SECONDS: Final = 60.0
"""The most seconds that one sample may wait for its turn and for its answer."""
_INTERVAL: Final = 15
_MOST_VALUES: Final = 1_200
"""Values asked for at most: with the longest pause they are 101 s apart, less than a gap."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A sample that is to be taken; `since` in Unix milliseconds."""

    upstream_id: str
    gpu_num: int
    since: int


class IdleSampler:
    """Samples the GPU use of the instances that asked for it."""

    def __init__(self, core: Core, source: UtilizationSource, reviews: LimitReviews) -> None:
        self._database = core.database
        self._clock = core.clock
        self._jobs = core.jobs
        self._source = source
        self._reviews = reviews

    def register(self) -> None:
        """Register the samples of due rows with the job engine."""
        self._jobs.register(JOB, self.run, due=autostop.due, concurrency=CONCURRENCY)

    async def run(self, instance_id: str) -> int | None:
        """Sample an instance if it is due.

        Returns:
            When to sample it again, in Unix milliseconds; None if only a change can matter.
        """
        asked = await self._database.write(partial(self._take, instance_id=instance_id))
        if asked is not None:
            found = await self._ask(asked)
            apply = partial(self._apply, instance_id=instance_id, asked=asked, found=found)
            await self._database.write(apply)
        return await self._database.read(partial(autostop.sample_due_at, instance_id=instance_id))

    def _take(self, connection: Connection, instance_id: str) -> _Asked | None:
        """Store that the sample is taken now; None if it is not due."""
        now = self._clock.now()
        instance = instances.lock(connection, instance_id)
        due_at = autostop.sample_due_at(connection, instance_id)
        if instance is None or instance.upstream_id is None or due_at is None or due_at > now:
            return None
        memory = replace(autostop.memory(connection, instance_id), sampled_at=now)
        autostop.store_memory(connection, instance_id, memory)
        instance = self._reviews.review(connection, instance)
        if autostop.sample_due_at(connection, instance_id) is None:
            return None  # it was stopped or released meanwhile
        since = max(memory.known_until, memory.set_at, instance.observed.run_began_at or 0)
        return _Asked(instance.upstream_id or "", instance.gpu_num, since)

    async def _ask(self, asked: _Asked) -> list[GpuUse]:
        """Ask for the GPU use; the result is empty if Novita does not give it."""
        now = self._clock.now()
        interval = max(_INTERVAL, -((asked.since - now) // (_MOST_VALUES * 1000)))
        try:
            async with within(_SECONDS, self._clock):
                found = await self._source.ask(
                    asked.upstream_id, begin=asked.since, end=now, interval=interval
                )
        except (UpstreamError, TimeoutError):
            return []  # a signal that stays missing is told by an event
        gpus = [{point.at: point.percent for point in series} for series in found.gpus]
        return highest_use(gpus, asked.gpu_num)

    def _apply(
        self, connection: Connection, instance_id: str, asked: _Asked, found: list[GpuUse]
    ) -> None:
        """Store the use that was found, and review the instance."""
        instance = instances.lock(connection, instance_id)
        if instance is None or instance.auto_stop is None:
            return
        if instance.upstream_id != asked.upstream_id:
            return
        memory = autostop.memory(connection, instance_id)
        memory = after_sample(
            instance.auto_stop,
            memory,
            found,
            since=max(memory.set_at, instance.observed.run_began_at or 0),
            now=self._clock.now(),
        )
        autostop.store_memory(connection, instance_id, memory)
        self._reviews.review(connection, instance)
