# SPDX-License-Identifier: Apache-2.0
"""Metrics."""

from __future__ import annotations

from typing import Literal

from novitai.api.schemas.health import CpuView
from novitai.api.schemas.wire import ResponseModel, Time


class RequestDurations(ResponseModel):
    """How many requests, and how long they took, in milliseconds.

    Requests that wait for a status are counted, and not timed.
    """

    count: int
    total_duration: float
    average_duration: float
    min_duration: float
    max_duration: float


class AllRequests(RequestDurations):
    """All requests together, and how many were answered with which status."""

    status_codes: dict[str, int]


class RequestNumbers(ResponseModel):
    """Requests since the process began; endpoints are `METHOD /route/{template}`."""

    total: AllRequests
    by_endpoint: dict[str, RequestDurations]
    by_method: dict[str, RequestDurations]


class JobTypeNumbers(ResponseModel):
    """Runs of jobs since the process began; the mean duration in milliseconds."""

    processed: int
    failed: int
    average_processing_time: float
    queue_size: int


class JobNumbers(ResponseModel):
    """All jobs, and by type (`create_instance`, `sync_instances`, ...).

    `fenced_writes` counts results that came too late: another worker had taken the work over.
    """

    total: JobTypeNumbers
    by_type: dict[str, JobTypeNumbers]
    fenced_writes: int


class MetricsMemory(ResponseModel):
    """Bytes."""

    rss: int
    heap_total: int
    heap_used: int
    external: int


class SystemNumbers(ResponseModel):
    """What the process uses; `uptime` in seconds."""

    memory: MetricsMemory
    cpu: CpuView
    uptime: float


class CacheNumbers(ResponseModel):
    """All caches together."""

    hits: int
    misses: int
    hit_ratio: float
    total_size: int
    evictions: int


class MetricsData(ResponseModel):
    """The numbers."""

    requests: RequestNumbers
    jobs: JobNumbers
    system: SystemNumbers
    cache: CacheNumbers


class MetricsResponse(ResponseModel):
    """The numbers of this process."""

    status: Literal["success"]
    timestamp: Time
    data: MetricsData
