# SPDX-License-Identifier: Apache-2.0
"""Schemas of the metrics in JSON."""

from __future__ import annotations

from typing import Literal

from novitai.api.schemas.health import CpuView
from novitai.api.schemas.wire import ResponseModel, Time


class RequestDurations(ResponseModel):
    """Number of requests, and their durations in milliseconds.

    Requests that wait for a status are counted but not timed.
    """

    count: int
    total_duration: float
    average_duration: float
    min_duration: float
    max_duration: float


class AllRequests(RequestDurations):
    """Totals over all requests, and the number of responses by status."""

    status_codes: dict[str, int]


class RequestNumbers(ResponseModel):
    """Requests since the process started; endpoints are `METHOD /route/{template}`."""

    total: AllRequests
    by_endpoint: dict[str, RequestDurations]
    by_method: dict[str, RequestDurations]


class JobTypeNumbers(ResponseModel):
    """Job runs since the process started; the mean duration is in milliseconds."""

    processed: int
    failed: int
    average_processing_time: float
    queue_size: int


class JobNumbers(ResponseModel):
    """Totals over all jobs, and by type (`create_instance`, `sync_instances`, ...).

    `fencedWrites` counts writes refused because another worker had claimed the work.
    """

    total: JobTypeNumbers
    by_type: dict[str, JobTypeNumbers]
    fenced_writes: int


class MetricsMemory(ResponseModel):
    """Memory of the process in bytes."""

    rss: int
    heap_total: int
    heap_used: int
    external: int


class SystemNumbers(ResponseModel):
    """Memory and CPU use of the process; `uptime` is in seconds."""

    memory: MetricsMemory
    cpu: CpuView
    uptime: float


class CacheNumbers(ResponseModel):
    """Totals over all caches."""

    hits: int
    misses: int
    hit_ratio: float
    total_size: int
    evictions: int


class MetricsData(ResponseModel):
    """All metrics in JSON."""

    requests: RequestNumbers
    jobs: JobNumbers
    system: SystemNumbers
    cache: CacheNumbers


class MetricsResponse(ResponseModel):
    """The metrics of this process."""

    status: Literal["success"]
    timestamp: Time
    data: MetricsData
