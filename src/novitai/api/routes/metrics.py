# SPDX-License-Identifier: Apache-2.0
"""`/metrics`: the metrics of this process as JSON, Prometheus text or OpenMetrics."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, TypeVar

import structlog
from starlette.responses import Response

from novitai.api.http.accept import JSON, preferred
from novitai.api.http.answers import answer
from novitai.api.routes.prometheus import (
    OPENMETRICS,
    TEXT,
    MetricsSnapshot,
    as_openmetrics,
    as_series,
    as_text,
)
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.health import CpuView
from novitai.api.schemas.metrics import (
    AllRequests,
    CacheNumbers,
    JobNumbers,
    JobTypeNumbers,
    MetricsData,
    MetricsMemory,
    MetricsResponse,
    RequestDurations,
    RequestNumbers,
    Series,
    SystemNumbers,
)
from novitai.api.services import Services
from novitai.domain.api_key import Scope
from novitai.lifecycle.catalogue.cache import CacheStats
from novitai.store.engine.errors import StoreError
from novitai.telemetry import streams
from novitai.telemetry.requests import Durations

T = TypeVar("T")
_OFFERED: Final = (JSON, TEXT, OPENMETRICS)

_ALWAYS_TOLD: Final = (200, 400, 401, 404, 500)
"""Statuses that the API reference lists; they are present even while their count is 0."""

_log = structlog.get_logger(__name__)


class MetricsRoutes:
    """Handlers of the metrics route."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """Declare the route."""
        return [
            Route(
                method="GET",
                path="/metrics",
                id="getMetrics",
                handler=self.metrics,
                scope=Scope.READ,
                tag="Metrics",
                summary="Read the metrics of this process",
                answers={200: MetricsResponse},
                other_types=[TEXT, OPENMETRICS],
            )
        ]

    async def metrics(self, call: RouteCall) -> Response:
        """Read counts and durations of requests and jobs, and the use of memory, CPU and caches.

        The format is JSON, or Prometheus text or OpenMetrics if `Accept` prefers `text/plain` or
        `application/openmetrics-text`.
        """
        wanted = preferred(call.context.accept, _OFFERED)
        snapshot = await self._snapshot()
        headers = {"Cache-Control": "no-store", "Vary": "Accept"}
        if wanted == TEXT:
            body, media_type = as_text(snapshot)
            return Response(body, 200, {**headers, "Content-Type": media_type})
        if wanted == OPENMETRICS:
            body, media_type = as_openmetrics(snapshot)
            return Response(body, 200, {**headers, "Content-Type": media_type})
        return answer(self._as_json(snapshot), headers=headers)

    async def _snapshot(self) -> MetricsSnapshot:
        services = self._services
        stats = services.jobs.stats()
        deliveries = services.webhooks.deliveries
        try:
            queued = dict(await services.jobs.queue_sizes())
        except Exception as error:  # incomplete metrics are better than none
            _log.warning("queue_sizes_unknown", error=type(error).__name__)
            queued = {name: one.queued for name, one in stats.items()}
        return MetricsSnapshot(
            requests=services.requests,
            upstream=services.upstream(),
            jobs=stats,
            queued=queued,
            fenced_writes=services.jobs.fenced_writes(),
            caches=[cache.stats() for cache in services.caches],
            memory=services.process.memory(),
            cpu=services.process.cpu(),
            uptime=services.process.uptime,
            deliveries=services.webhooks.metrics.snapshot(),
            oldest_delivery=await _or_none("oldest_delivery", deliveries.oldest_waiting_seconds()),
            feed_lag=await _or_none("feed_lag", services.history.feed_lag_seconds()),
            store=services.store,
            connections=services.connections.snapshot(),
            event_streams=services.event_streams.count,
            event_streams_closed=dict(services.event_streams.closed),
            now=services.clock.now(),
            fleet=await _or_none("fleet", services.fleet.read()),
            limiter_fallbacks=services.shared_buckets.fallbacks if services.shared_buckets else 0,
            dropped_lines=streams.dropped(),
        )

    def _as_json(self, snapshot: MetricsSnapshot) -> MetricsResponse:
        return MetricsResponse(
            status="success",
            timestamp=self._services.clock.now(),
            data=MetricsData(
                requests=_requests(snapshot),
                jobs=_jobs(snapshot),
                system=_system(snapshot),
                cache=_caches(snapshot.caches),
                series={
                    name: [Series(labels=labels, value=value) for labels, value in samples]
                    for name, samples in as_series(snapshot).items()
                },
            ),
        )


def _requests(snapshot: MetricsSnapshot) -> RequestNumbers:
    requests = snapshot.requests
    counts = {**dict.fromkeys(_ALWAYS_TOLD, 0), **requests.statuses()}
    total = _durations(requests.total())
    return RequestNumbers(
        total=AllRequests(
            **dict(total),
            status_codes={str(status): counts[status] for status in sorted(counts)},
        ),
        by_endpoint={
            f"{method} {route}": _durations(counted.durations)
            for (method, route), counted in requests.routes.items()
        },
        by_method={
            method: _durations(durations) for method, durations in requests.by_method().items()
        },
    )


def _durations(durations: Durations) -> RequestDurations:
    return RequestDurations(
        count=durations.count,
        total_duration=_ms(durations.total),
        average_duration=_ms(durations.average),
        min_duration=_ms(durations.least),
        max_duration=_ms(durations.most),
    )


def _jobs(snapshot: MetricsSnapshot) -> JobNumbers:
    stats, queued = snapshot.jobs, snapshot.queued
    runs = sum(one.processed + one.failed for one in stats.values())
    seconds = sum(one.seconds_sum for one in stats.values())
    return JobNumbers(
        total=JobTypeNumbers(
            processed=sum(one.processed for one in stats.values()),
            failed=sum(one.failed for one in stats.values()),
            average_processing_time=_ms(seconds / runs) if runs else 0.0,
            queue_size=sum(queued.values()),
        ),
        by_type={
            name: JobTypeNumbers(
                processed=one.processed,
                failed=one.failed,
                average_processing_time=_ms(one.seconds_mean),
                queue_size=queued.get(name, 0),
            )
            for name, one in stats.items()
        },
        fenced_writes=snapshot.fenced_writes,
    )


def _system(snapshot: MetricsSnapshot) -> SystemNumbers:
    memory, cpu = snapshot.memory, snapshot.cpu
    return SystemNumbers(
        memory=MetricsMemory(
            rss=memory.rss,
            heap_total=memory.heap_total,
            heap_used=memory.heap_used,
            external=memory.shared,
        ),
        cpu=CpuView(
            usage=round(cpu.usage, 4), load_average=[round(load, 2) for load in cpu.load_average]
        ),
        uptime=round(snapshot.uptime, 3),
    )


def _caches(caches: list[CacheStats]) -> CacheNumbers:
    hits = sum(cache.hits for cache in caches)
    misses = sum(cache.misses for cache in caches)
    return CacheNumbers(
        hits=hits,
        misses=misses,
        hit_ratio=ratio(hits, misses),
        total_size=sum(cache.size for cache in caches),
        evictions=sum(cache.evictions for cache in caches),
    )


def ratio(hits: int, misses: int) -> float:
    """Return the fraction of hits; 0 if there were no reads yet."""
    return round(hits / (hits + misses), 4) if hits + misses else 0.0


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


async def _or_none(metric: str, reading: Awaitable[T]) -> T | None:
    """Return what is read, or None after a log line: the other metrics are shown."""
    try:
        return await reading
    except StoreError as error:
        _log.warning("metric_unknown", metric=metric, error=type(error).__name__)
        return None
