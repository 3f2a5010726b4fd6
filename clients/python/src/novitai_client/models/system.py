# SPDX-License-Identifier: Apache-2.0
"""The account, caches, health and metrics."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from novitai_client.wire import Model, Open
from novitai_client.words import HoldReason


class MissingInstance(Model):
    """A record whose instance is missing from the account."""

    instance_id: str
    name: str
    upstream_id: str | None = None


class AccountHold(Model):
    """Why no write call is sent to Novita: `disappeared`, `key_changed` or `restored`."""

    reason: Open[HoldReason]
    since: datetime
    message: str
    missing: list[MissingInstance]
    missing_count: int
    missing_digest: str


class Account(Model):
    """The state of the Novita account; `hold` is present while write calls are held."""

    held: bool
    hold: AccountHold | None = None
    listed_at: datetime | None = None
    incomplete_listings: int
    orphans: int


class Confirmed(Model):
    """The number of records confirmed as gone."""

    confirmed: int


class CacheStats(Model):
    """Statistics of one cache since the process started."""

    hits: int
    misses: int
    hit_ratio: float
    size: int
    max_size: int
    ttl_seconds: float
    evictions: int
    expired: int


class CachesSummary(Model):
    """Totals over all caches."""

    total_caches: int
    total_entries: int
    total_hits: int
    total_misses: int
    overall_hit_ratio: float


class Caches(Model):
    """Statistics of all caches, by name."""

    timestamp: datetime
    caches: dict[str, CacheStats]
    summary: CachesSummary


class CacheKey(Model):
    """A key, the age of its entry and the time until the entry expires."""

    key: str
    age_seconds: float
    time_left_seconds: float


class CacheDetails(CacheStats):
    """Statistics and keys of one cache."""

    cache_name: str
    timestamp: datetime
    keys: list[CacheKey]


class CachesChanged(Model):
    """The result, and the number of entries removed."""

    message: str
    timestamp: datetime
    entries_removed: int


class CacheKeyDeleted(Model):
    """The result."""

    message: str
    timestamp: datetime


class ServicesHealth(Model):
    """The state of the services that this process depends on."""

    novita_api: Open[Literal["up", "down"]]
    job_queue: Open[Literal["up", "down"]]
    cache: Open[Literal["up", "down"]]


class Performance(Model):
    """The last minute. `average_response_time` is in milliseconds, `error_rate` (5xx) in percent.

    Requests that wait for a status are counted but not timed.
    """

    requests_per_minute: float
    average_response_time: float
    error_rate: float
    job_processing_rate: float


class HealthMemory(Model):
    """In megabytes: private, limit of the container or machine, shared, resident."""

    used_mb: float = Field(alias="usedMB")
    total_mb: float = Field(alias="totalMB")
    external_mb: float = Field(alias="externalMB")
    rss: float


class Cpu(Model):
    """CPU use; `usage` is in percent in `/health` and a fraction in `/metrics`."""

    usage: float
    load_average: list[float]


class HealthSystem(Model):
    """Memory and CPU use of the process."""

    memory: HealthMemory
    cpu: Cpu


class ClockWentBack(Model):
    """The system clock was set back; `seconds` says how far, if known."""

    went_back_at: datetime
    seconds: float | None = None


class Health(Model):
    """The health of the process and its dependencies; `uptime` is in seconds."""

    status: Open[Literal["healthy", "unhealthy"]]
    timestamp: datetime
    services: ServicesHealth
    uptime: float
    performance: Performance
    system: HealthSystem
    clock: ClockWentBack | None = None


class Probe(Model):
    """The result of a probe; `reason` is the error code of the database failure."""

    status: Open[Literal["ok", "unavailable"]]
    timestamp: datetime
    reason: str | None = None


class AllRequests(Model):
    """Totals over all requests, and the number of responses by status."""

    count: int
    total_duration: float
    average_duration: float
    min_duration: float
    max_duration: float
    status_codes: dict[str, int]


class RequestDurations(Model):
    """Number of requests, and their durations in milliseconds.

    Requests that wait for a status are counted but not timed.
    """

    count: int
    total_duration: float
    average_duration: float
    min_duration: float
    max_duration: float


class RequestNumbers(Model):
    """Requests since the process started; endpoints are `METHOD /route/{template}`."""

    total: AllRequests
    by_endpoint: dict[str, RequestDurations]
    by_method: dict[str, RequestDurations]


class JobTypeNumbers(Model):
    """Job runs since the process started; the mean duration is in milliseconds."""

    processed: int
    failed: int
    average_processing_time: float
    queue_size: int


class JobNumbers(Model):
    """Totals over all jobs, and by type (`create_instance`, `sync_instances`, ...).

    `fenced_writes` counts writes refused because another worker had claimed the work.
    """

    total: JobTypeNumbers
    by_type: dict[str, JobTypeNumbers]
    fenced_writes: int


class MetricsMemory(Model):
    """Memory of the process in bytes."""

    rss: int
    heap_total: int
    heap_used: int
    external: int


class SystemNumbers(Model):
    """Memory and CPU use of the process; `uptime` is in seconds."""

    memory: MetricsMemory
    cpu: Cpu
    uptime: float


class CacheNumbers(Model):
    """Totals over all caches."""

    hits: int
    misses: int
    hit_ratio: float
    total_size: int
    evictions: int


class Series(Model):
    """A value with its labels, as in the Prometheus text."""

    labels: dict[str, str]
    value: float


class MetricsData(Model):
    """All metrics in JSON; `series` has every sample of the Prometheus text, by its name."""

    requests: RequestNumbers
    jobs: JobNumbers
    system: SystemNumbers
    cache: CacheNumbers
    series: dict[str, list[Series]]


class Metrics(Model):
    """The metrics of this process."""

    status: str
    timestamp: datetime
    data: MetricsData
