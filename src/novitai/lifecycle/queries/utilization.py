# SPDX-License-Identifier: Apache-2.0
"""How busy an instance was, from Novita's metrics: the one read that asks Novita."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from novitai.clock import Clock
from novitai.errors import FieldError, ValidationFailed
from novitai.lifecycle.catalogue.cache import Cache
from novitai.lifecycle.queries.ready_views import unknown
from novitai.store.engine.database import Database
from novitai.store.queries import instances
from novitai.upstream.client import NovitaClient
from novitai.upstream.errors import UpstreamError
from novitai.upstream.models import UpstreamUtilization

TTL: Final = 15.0
"""Seconds for which an answer is repeated."""
DEFAULT_RANGE: Final = 3600 * 1000
"""Milliseconds that are shown if the request gives no beginning."""
LONGEST_RANGE: Final = 31 * 24 * 3600 * 1000
MOST_POINTS: Final = 1000
LEAST_INTERVAL: Final = 15
LONGEST_INTERVAL: Final = 86_400
_CACHED: Final = 500
_TELL_AGAIN: Final = 3600.0
"""Seconds between two log lines about metrics that cannot be read."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UtilizationWindow:
    """The part of the metrics to read: begin and end in Unix milliseconds, interval in seconds.

    An absent end is now, an absent begin an hour before the end, and an absent interval the
    shortest one with at most `MOST_POINTS` points.
    """

    begin: int | None = None
    end: int | None = None
    interval: int | None = None

    def bounds(self, now: int) -> tuple[int, int, int]:
        """Return begin and end in Unix milliseconds, as `now`, and the interval in seconds."""
        end = now if self.end is None else min(self.end, now)
        begin = end - DEFAULT_RANGE if self.begin is None else self.begin
        shortest = -((begin - end) // (MOST_POINTS * 1000))
        return begin, end, self.interval or max(LEAST_INTERVAL, shortest)

    def check(self, now: int) -> None:
        """Check the values against each other; `now` in Unix milliseconds.

        Raises:
            ValidationFailed: the window is empty, too long, or has too many values.
        """
        begin, end, interval = self.bounds(now)
        if begin >= end:
            wrong = FieldError("from", "From must be before to and before now", has_value=False)
        elif end - begin > LONGEST_RANGE:
            wrong = FieldError("from", "From must be at most 31 days before to", has_value=False)
        elif (end - begin) // (interval * 1000) > MOST_POINTS:
            wrong = FieldError(
                "interval", f"Interval must give at most {MOST_POINTS} values", self.interval
            )
        else:
            return
        raise ValidationFailed("Validation failed", details=[wrong])


class UtilizationSource:
    """Asks Novita for utilization; a failure is logged at most once an hour."""

    def __init__(self, client: NovitaClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._told_at: float | None = None

    async def ask(
        self, upstream_id: str, *, begin: int, end: int, interval: int
    ) -> UpstreamUtilization:
        """Return the utilization from `begin` to `end` (Unix milliseconds).

        Args:
            upstream_id: The instance at Novita.
            begin: The first moment.
            end: The last moment.
            interval: Seconds between two values.

        Raises:
            UpstreamError: Novita does not give the metrics.
        """
        try:
            return await self._client.utilization(
                upstream_id, begin=begin, end=end, interval=interval
            )
        except UpstreamError as error:
            now = self._clock.monotonic()
            if self._told_at is None or now - self._told_at >= _TELL_AGAIN:
                self._told_at = now
                _log.warning("utilization_unavailable", error=str(error))
            raise


class UtilizationReader:
    """Reads utilization, each answer at most once in `TTL` seconds."""

    def __init__(self, database: Database, source: UtilizationSource, clock: Clock) -> None:
        self._database = database
        self._source = source
        self._clock = clock
        self._cache: Cache[UpstreamUtilization] = Cache(
            "utilization", clock, ttl=TTL, max_size=_CACHED
        )

    async def read(self, instance_id: str, window: UtilizationWindow) -> UpstreamUtilization:
        """Return the utilization of an instance; it is empty before the purchase and after the end.

        Raises:
            ValidationFailed: the window is empty, too long, or has too many values.
            NotFound: `INSTANCE_NOT_FOUND`.
            UpstreamError: Novita does not give the metrics.
        """
        window.check(self._clock.now())
        instance = await self._database.read(partial(instances.load, instance_id=instance_id))
        if instance is None:
            raise unknown(instance_id)
        if instance.upstream_id is None or instance.status.ended:
            return UpstreamUtilization()
        key = f"{instance.upstream_id}/{window.begin}/{window.end}/{window.interval}"
        load = partial(self._load, instance.upstream_id, window)
        return await self._cache.get(key, load)

    async def _load(self, upstream_id: str, window: UtilizationWindow) -> UpstreamUtilization:
        begin, end, interval = window.bounds(self._clock.now())
        return await self._source.ask(upstream_id, begin=begin, end=end, interval=interval)
