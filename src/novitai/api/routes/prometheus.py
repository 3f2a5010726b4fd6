# SPDX-License-Identifier: Apache-2.0
"""Render metrics as Prometheus text and OpenMetrics. Labels are templates and names, not IDs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from novitai.jobs.metrics import JobStats
from novitai.lifecycle.account import Overview
from novitai.lifecycle.catalogue.cache import CacheStats
from novitai.lifecycle.webhooks.metrics import DeliveryOutcome
from novitai.telemetry.process import Cpu, Memory
from novitai.telemetry.requests import BUCKETS, RequestMetrics
from novitai.upstream.breaker import BreakerState
from novitai.upstream.metrics import BUCKETS as CALL_BUCKETS
from novitai.upstream.metrics import UpstreamNumbers

TEXT: Final = "text/plain"
OPENMETRICS: Final = "application/openmetrics-text"


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """The metrics at one moment.

    Attributes:
        upstream: Metrics of the calls to Novita.
        queued: Number of queued jobs by type.
        fenced_writes: Results dropped because another worker had claimed the work.
        limiter_fallbacks: Requests limited by this process alone because Redis did not answer.
        dropped_lines: Log lines dropped because the reader of the output was too slow.
        deliveries: Delivery attempts by outcome.
        oldest_delivery: Age in seconds of the oldest pending message; None if unknown.
        feed_lag: Age in seconds of the first stored event that `GET /api/events` does not list
            yet; None if unknown.
        account: The state of the Novita account; None if unknown.
    """

    requests: RequestMetrics
    upstream: UpstreamNumbers
    jobs: Mapping[str, JobStats]
    queued: Mapping[str, int]
    caches: list[CacheStats]
    memory: Memory
    cpu: Cpu
    uptime: float
    fenced_writes: int = 0
    limiter_fallbacks: int = 0
    dropped_lines: int = 0
    deliveries: Mapping[DeliveryOutcome, int] = field(default_factory=dict)
    oldest_delivery: float | None = None
    feed_lag: float | None = None
    account: Overview | None = None


def as_text(snapshot: MetricsSnapshot) -> tuple[bytes, str]:
    """Return Prometheus text and its media type."""
    return generate_latest(_registry(snapshot)), CONTENT_TYPE_PLAIN_0_0_4


def as_openmetrics(snapshot: MetricsSnapshot) -> tuple[bytes, str]:
    """Return OpenMetrics and its media type."""
    body: bytes = openmetrics.generate_latest(  # type: ignore[no-untyped-call]  # it has no types
        _registry(snapshot)
    )
    return body, openmetrics.CONTENT_TYPE_LATEST


def _registry(snapshot: MetricsSnapshot) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(snapshot))
    return registry


class _Numbers(Collector):
    def __init__(self, snapshot: MetricsSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; `prometheus_client` calls this."""
        yield from _of_requests(self._snapshot.requests)
        yield from _of_upstream(self._snapshot.upstream)
        yield from _of_jobs(self._snapshot.jobs, self._snapshot.queued)
        yield CounterMetricFamily(
            "novitai_fenced_writes",
            "Results dropped because another worker had claimed the work.",
            value=self._snapshot.fenced_writes,
        )
        yield from _of_caches(self._snapshot.caches)
        yield CounterMetricFamily(
            "novitai_rate_limit_fallbacks",
            "Requests limited by this process alone because Redis did not answer.",
            value=self._snapshot.limiter_fallbacks,
        )
        yield CounterMetricFamily(
            "novitai_log_lines_dropped",
            "Log lines dropped because the reader of the output was too slow.",
            value=self._snapshot.dropped_lines,
        )
        yield from _of_webhooks(self._snapshot)
        if self._snapshot.feed_lag is not None:
            yield GaugeMetricFamily(
                "novitai_event_feed_lag_seconds",
                "Age of the first stored event that GET /api/events holds back; 0 if none.",
                value=self._snapshot.feed_lag,
            )
        if self._snapshot.account is not None:
            yield from _of_account(self._snapshot.account)
        yield from _of_process(self._snapshot)

    def describe(self) -> list[Metric]:
        """Declare no metrics in advance."""
        return []


def _of_account(account: Overview) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "novitai_orphans",
        "Orphans that were not dismissed.",
        value=account.orphans,
    )
    yield GaugeMetricFamily(
        "novitai_account_held",
        "1 while write calls are held because the account differs from the records.",
        value=int(account.state.blocked),
    )
    yield GaugeMetricFamily(
        "novitai_incomplete_listings",
        "Consecutive listings of the account that were incomplete.",
        value=account.looked.incomplete_count,
    )


def _of_requests(requests: RequestMetrics) -> Iterator[Metric]:
    answered = CounterMetricFamily(
        "novitai_http_requests",
        "Requests answered.",
        labels=["method", "route", "status"],
    )
    took = HistogramMetricFamily(
        "novitai_http_request_duration_seconds",
        "Duration of requests. Requests that wait for a status are not timed.",
        labels=["method", "route"],
    )
    bounds = [*map(str, BUCKETS), "+Inf"]
    for (method, route), counted in requests.routes.items():
        for status, count in counted.statuses.items():
            answered.add_metric([method, route, str(status)], count)
        if not counted.durations.timed:
            continue
        took.add_metric(
            [method, route],
            list(zip(bounds, accumulate(counted.buckets), strict=True)),
            counted.durations.total,
        )
    yield answered
    yield took


def _of_upstream(numbers: UpstreamNumbers) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "novitai_upstream_calls", "Calls to Novita that ended.", labels=["endpoint", "outcome"]
    )
    took = HistogramMetricFamily(
        "novitai_upstream_call_duration_seconds",
        "Duration of calls to Novita, without the wait for a permit.",
        labels=["endpoint"],
    )
    state = GaugeMetricFamily(
        "novitai_upstream_breaker_state",
        "1 for the current state of the circuit breaker of a class of calls, else 0.",
        labels=["class", "state"],
    )
    bounds = [*map(str, CALL_BUCKETS), "+Inf"]
    for endpoint, calls in numbers.endpoints.items():
        for outcome, count in calls.outcomes.items():
            ended.add_metric([endpoint, outcome.value], count)
        took.add_metric(
            [endpoint],
            list(zip(bounds, accumulate(calls.buckets), strict=True)),
            calls.seconds,
        )
    for guarded, current in numbers.breakers.items():
        for one in BreakerState:
            state.add_metric([guarded, one.value], int(one is current))
    waiting = GaugeMetricFamily(
        "novitai_upstream_permits_waiting",
        "Calls to Novita that wait for the rate limiter.",
        value=numbers.permits_waiting,
    )
    yield from (ended, took, waiting, state)


def _of_jobs(jobs: Mapping[str, JobStats], queued: Mapping[str, int]) -> Iterator[Metric]:
    ended = CounterMetricFamily("novitai_jobs", "Job runs that ended.", labels=["type", "outcome"])
    took = SummaryMetricFamily(
        "novitai_job_duration_seconds", "Duration of job runs.", labels=["type"]
    )
    running = GaugeMetricFamily("novitai_jobs_running", "Jobs running now.", labels=["type"])
    waiting = GaugeMetricFamily("novitai_jobs_queued", "Jobs waiting.", labels=["type"])
    for name, one in jobs.items():
        ended.add_metric([name, "processed"], one.processed)
        ended.add_metric([name, "failed"], one.failed)
        ended.add_metric([name, "cancelled"], one.cancelled)
        took.add_metric([name], one.processed + one.failed, one.seconds_sum)
        running.add_metric([name], one.running)
    for name, count in queued.items():
        waiting.add_metric([name], count)
    yield from (ended, took, running, waiting)


def _of_caches(caches: list[CacheStats]) -> Iterator[Metric]:
    label = ["cache"]
    hits = CounterMetricFamily(
        "novitai_cache_hits", "Cache reads that found a fresh value.", labels=label
    )
    misses = CounterMetricFamily(
        "novitai_cache_misses", "Cache reads that found none.", labels=label
    )
    evictions = CounterMetricFamily(
        "novitai_cache_evictions", "Values removed because the cache was full.", labels=label
    )
    entries = GaugeMetricFamily("novitai_cache_entries", "Values held now.", labels=label)
    for cache in caches:
        hits.add_metric([cache.name], cache.hits)
        misses.add_metric([cache.name], cache.misses)
        evictions.add_metric([cache.name], cache.evictions)
        entries.add_metric([cache.name], cache.size)
    yield from (hits, misses, evictions, entries)


def _of_webhooks(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    tries = CounterMetricFamily(
        "novitai_webhook_attempts", "Delivery attempts.", labels=["outcome"]
    )
    for outcome, count in snapshot.deliveries.items():
        tries.add_metric([outcome.value], count)
    yield tries
    if snapshot.oldest_delivery is not None:
        yield GaugeMetricFamily(
            "novitai_webhook_oldest_waiting_seconds",
            "Age of the oldest pending message, all processes; 0 if none is pending.",
            value=snapshot.oldest_delivery,
        )


def _of_process(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    memory, cpu = snapshot.memory, snapshot.cpu
    for name, text, value in (
        ("process_resident_memory_bytes", "Resident memory.", memory.rss),
        (
            "process_shared_memory_bytes",
            "Resident memory shared with other processes.",
            memory.shared,
        ),
        ("process_heap_mapped_bytes", "Mapped data segment.", memory.heap_total),
        ("process_heap_used_bytes", "Used data segment.", memory.heap_used),
        ("process_memory_limit_bytes", "Memory limit of the process.", memory.total),
        ("process_cpu_usage_ratio", "Share of all processors over the last minute.", cpu.usage),
        ("process_uptime_seconds", "Time since the process started.", snapshot.uptime),
        ("load1", "Load average of the machine over 1 minute.", cpu.load_average[0]),
        ("load5", "Load average of the machine over 5 minutes.", cpu.load_average[1]),
        ("load15", "Load average of the machine over 15 minutes.", cpu.load_average[2]),
    ):
        yield GaugeMetricFamily(f"novitai_{name}", text, value=value)
