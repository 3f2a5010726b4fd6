# SPDX-License-Identifier: Apache-2.0
"""Render metrics as Prometheus text, OpenMetrics or a list of series.

Labels are templates, names and words of enumerations, not IDs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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

from novitai.domain.billing import HOURS_PER_DAY, SpanKind
from novitai.domain.instance import BillingMode, InstanceStatus
from novitai.domain.product import PRICE_UNITS_PER_USD
from novitai.jobs.metrics import JobStats
from novitai.lifecycle.catalogue.cache import CacheStats
from novitai.lifecycle.queries.event_streams import Ended
from novitai.lifecycle.webhooks.metrics import DeliveryOutcome
from novitai.store.engine.metrics import Histogram, StoreMetrics
from novitai.store.queries.fleet import FleetNumbers, MoneyNumbers
from novitai.telemetry.connections import ConnectionState
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
        store: Durations of transactions, and counts of what they committed.
        connections: Number of open HTTP connections by state.
        event_streams: Number of open event streams of this process.
        event_streams_closed: Event streams that ended, by reason.
        now: Unix milliseconds.
        fleet: The figures about the whole installation; None before they are first counted.
    """

    requests: RequestMetrics
    upstream: UpstreamNumbers
    jobs: Mapping[str, JobStats]
    queued: Mapping[str, int]
    caches: list[CacheStats]
    memory: Memory
    cpu: Cpu
    uptime: float
    fenced_writes: int
    limiter_fallbacks: int
    dropped_lines: int
    deliveries: Mapping[DeliveryOutcome, int]
    oldest_delivery: float | None
    feed_lag: float | None
    store: StoreMetrics
    connections: Mapping[ConnectionState, int]
    event_streams: int
    event_streams_closed: Mapping[Ended, int]
    now: int
    fleet: FleetNumbers | None


def as_text(snapshot: MetricsSnapshot) -> tuple[bytes, str]:
    """Return Prometheus text and its media type."""
    return generate_latest(_registry(snapshot)), CONTENT_TYPE_PLAIN_0_0_4


def as_openmetrics(snapshot: MetricsSnapshot) -> tuple[bytes, str]:
    """Return OpenMetrics and its media type."""
    body: bytes = openmetrics.generate_latest(  # type: ignore[no-untyped-call]  # it has no types
        _registry(snapshot)
    )
    return body, openmetrics.CONTENT_TYPE_LATEST


def as_series(snapshot: MetricsSnapshot) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return labels and value of each sample by its name, as in the Prometheus text."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in _Numbers(snapshot).collect():
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


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
        yield from _of_event_streams(self._snapshot)
        yield from _of_commits(self._snapshot.store)
        yield from _of_database(self._snapshot.store)
        connections = GaugeMetricFamily(
            "novitai_connections", "Open HTTP connections.", labels=["state"]
        )
        for state, count in self._snapshot.connections.items():
            connections.add_metric([state.value], count)
        yield connections
        if self._snapshot.fleet is not None:
            yield from _of_fleet(self._snapshot.fleet, self._snapshot.now)
            yield from _of_money(self._snapshot.fleet, self._snapshot.now)
        yield from _of_process(self._snapshot)

    def describe(self) -> list[Metric]:
        """Declare no metrics in advance."""
        return []


def _of_fleet(fleet: FleetNumbers, now: int) -> Iterator[Metric]:
    counted = GaugeMetricFamily(
        "novitai_instances",
        "Instances whose record has not ended.",
        labels=["status", "billing_mode"],
    )
    numbers = {(status, mode): number for status, mode, number in fleet.instances}
    for status in InstanceStatus:
        for mode in () if status.ended else BillingMode:
            key = (status.value, mode.value)
            counted.add_metric(key, numbers.get(key, 0))
    yield counted
    running = GaugeMetricFamily(
        "novitai_operations", "Unfinished operations.", labels=["kind", "phase"]
    )
    for kind, phase, number in fleet.operations:
        running.add_metric([kind, phase], number)
    yield running
    for name, text, value in (
        (
            "operation_oldest_due_seconds",
            "Time for which the oldest due operation has waited for a worker; 0 if none waits.",
            _age(fleet.oldest_due, now) or 0.0,
        ),
        ("orphans", "Orphans that were not dismissed.", fleet.orphans),
        ("unmanaged", "Instances of the account without a record.", fleet.unmanaged),
        (
            "account_held",
            "1 while write calls are held because the account differs from the records.",
            int(fleet.held),
        ),
        (
            "incomplete_listings",
            "Consecutive listings of the account that were incomplete.",
            fleet.incomplete_listings,
        ),
        (
            "listing_interval_seconds",
            "Time between two listings of the account.",
            fleet.listing_interval,
        ),
        (
            "limits_unenforced",
            "Instances with a limit that is due and has no effect.",
            fleet.unenforced,
        ),
        (
            "fleet_age_seconds",
            "Time since a worker counted the figures about the whole installation.",
            _age(fleet.counted_at, now) or 0.0,
        ),
    ):
        yield GaugeMetricFamily(f"novitai_{name}", text, value=value)
    yield _known(
        "listing_age_seconds",
        "Time since the last complete listing of the account began.",
        _age(fleet.listed_at, now),
    )


def _of_money(fleet: FleetNumbers, now: int) -> Iterator[Metric]:
    money: MoneyNumbers = fleet.money
    yield GaugeMetricFamily(
        "novitai_burn_usd_per_hour",
        "The present cost of all instances per hour.",
        value=fleet.burn / HOURS_PER_DAY / PRICE_UNITS_PER_USD,
    )
    spend = CounterMetricFamily(
        "novitai_spend_usd", "The amount that was certainly billed.", labels=["kind"]
    )
    for kind in SpanKind:
        spend.add_metric([kind.value], money.spend.get(kind.value, 0) / PRICE_UNITS_PER_USD)
    yield spend
    used = GaugeMetricFamily(
        "novitai_budget_used_ratio",
        "The spent share of a budget in its present period.",
        labels=["budget"],
    )
    for name, ratio in money.budgets.items():
        used.add_metric([name], ratio)
    yield used
    yield _known(
        "account_balance_usd", "The balance of the account, if Novita tells it.", money.balance
    )
    yield _known(
        "bills_age_seconds",
        "Time since the end of the last hour whose bills were compared with the ledger.",
        _age(fleet.bills_until, now),
    )
    told = GaugeMetricFamily(
        "novitai_bill_events",
        "Events about differences between bills and ledger in the last 24 hours.",
        labels=["type"],
    )
    for name, count in fleet.bill_events.items():
        told.add_metric([name], count)
    yield told


def _of_commits(store: StoreMetrics) -> Iterator[Metric]:
    for name, text, label, counts in (
        ("creates", "Creates that ended.", "outcome", store.creates),
        ("attempts", "Results of create calls.", "outcome", store.attempts),
        ("status_changes", "Changes of the status of an instance.", "to", store.status_changes),
    ):
        family = CounterMetricFamily(f"novitai_{name}", text, labels=[label])
        for word, count in counts.items():
            family.add_metric([word.value], count)
        yield family
    yield CounterMetricFamily(
        "novitai_surplus_deleted",
        "Surplus instances that were deleted.",
        value=store.surplus_deleted,
    )
    took = HistogramMetricFamily(
        "novitai_create_to_running_seconds", "Time from a create to its first `running`."
    )
    _add(took, [], store.create_to_running)
    yield took


def _of_database(store: StoreMetrics) -> Iterator[Metric]:
    took = HistogramMetricFamily(
        "novitai_database_seconds",
        "Time of a transaction as its caller waits: for a thread, its statements, its commit.",
        labels=["kind"],
    )
    for kind, durations in store.durations.items():
        _add(took, [kind], durations)
    yield took


def _add(family: HistogramMetricFamily, labels: list[str], counted: Histogram) -> None:
    bounds = [*map(str, counted.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(counted.buckets), strict=True))
    family.add_metric(labels, buckets, counted.seconds)


def _known(name: str, text: str, value: float | None) -> Metric:
    """Return a gauge, without a sample if the value is unknown."""
    gauge = GaugeMetricFamily(f"novitai_{name}", text, labels=[])
    if value is not None:
        gauge.add_metric([], value)
    return gauge


def _age(moment: int | None, now: int) -> float | None:
    return None if moment is None else max(0.0, (now - moment) / 1000)


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
        "novitai_upstream_calls", "Calls to Novita that ended.", labels=["operation", "outcome"]
    )
    took = HistogramMetricFamily(
        "novitai_upstream_call_seconds",
        "Duration of calls to Novita, without the wait for a permit.",
        labels=["operation"],
    )
    state = GaugeMetricFamily(
        "novitai_upstream_breaker_open",
        "1 while the circuit breaker of a class of calls is open or half-open, else 0.",
        labels=["class"],
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
        state.add_metric([guarded], int(current is not BreakerState.CLOSED))
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


def _of_event_streams(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "novitai_event_streams",
        "Open streams of GET /api/events/stream.",
        value=snapshot.event_streams,
    )
    closed = CounterMetricFamily(
        "novitai_event_streams_closed", "Event streams that ended, by reason.", labels=["reason"]
    )
    for reason in Ended:
        closed.add_metric([reason.value], snapshot.event_streams_closed.get(reason, 0))
    yield closed
